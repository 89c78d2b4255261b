"""Replaced token detection as a run: its two networks put together, measured, and saved as two models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import nn

from bothways.data.masking import Vocabulary
from bothways.data.tokenizer import Tokenizer
from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder
from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.encoder.generator import generator_of
from bothways.encoder.initialisation import initialise
from bothways.errors import InputError
from bothways.families import BY_NAME, mixture
from bothways.families.family import Family, Heads, Spec
from bothways.layers.heads import MaskedLm
from bothways.layers.replaced_token import ReplacedToken
from bothways.model.folder import check_expressed
from bothways.model.model import Model
from bothways.objectives.ngram_relations import NGramRelationModeling
from bothways.objectives.replaced_token import ReplacedTokenDetection, ReplacedTokens, detection
from bothways.objectives.sharing import folded
from bothways.recipes.carrying_out import weighted_averages
from bothways.recipes.runs import Pretraining
from bothways.training.optimizer import Group, Optimizer, default_groups

# Apart from the seed of the discriminator, which begins as the same run without a generator would
_GENERATOR_SEED = 1 << 32
# Train metrics that reports plot
METRICS: tuple[str, ...] = ("generator_accuracy", "discriminator_accuracy", "share_replaced", "share_found", "masked")

WithGenerator: TypeAlias = ReplacedTokenDetection | NGramRelationModeling


def unfilled_detection(run: Pretraining, settings: ReplacedTokens, vocabulary: Vocabulary) -> ReplacedTokenDetection:
    """The objective, whose weights are whatever torch makes of them."""
    small = generator_of(settings.generator, run.encoder)
    head = MaskedLm(run.head, small.hidden_size, small.vocab_size, small.embedding.size)
    detector = ReplacedToken(settings.head, run.encoder.hidden_size)
    try:
        return ReplacedTokenDetection(Encoder(run.encoder), detector, Encoder(small), head, settings, run.masking, vocabulary)
    except InputError as error:
        if settings.decoder is None:
            raise
        raise InputError(f"replaced_tokens.decoder: {error}, as generator; set it to null") from None


def initialise_detection(objective: ReplacedTokenDetection, seed: int) -> None:
    """Fresh weights, a function of the seed; what is shared begins as the discriminator's does."""
    initialise_both((objective.generator, objective.on_generator), (objective.encoder, objective.head), seed)


def initialise_both(generator: tuple[Encoder, nn.Module], discriminator: tuple[Encoder, nn.Module], seed: int) -> None:
    """Fresh weights of two encoders, each with what stands on it."""
    for (encoder, head), drawn in ((generator, seed + _GENERATOR_SEED), (discriminator, seed)):
        initialise(nn.ModuleList([encoder, head]), encoder.config.initialisation, encoder.config.num_layers, drawn)


def discriminator_model(run: Pretraining, tokenizer: Tokenizer, objective: ReplacedTokenDetection) -> Model:
    """The model a user loads, on the modules that are trained; `refold` brings its tables up to date where they are shifted.

    It has the head for replaced tokens where its family has a name for it.
    """
    family = BY_NAME[run.family]
    spec = Spec(encoder=run.encoder, heads=detector_heads(objective.settings, family), pad_id=tokenizer.pad_id or 0)
    with torch.device("meta"):
        model = Model(family, spec, tokenizer, name=run.family)
    model.encoder = folded(objective.encoder)
    if "replaced_token" in model.heads:
        model.heads["replaced_token"] = objective.head
    return model


def detector_heads(settings: ReplacedTokens, family: Family) -> Heads:
    """The head for replaced tokens, where the family has a name for it."""
    return Heads(replaced_token=settings.head) if "replaced_token" in family.marks else Heads()


def generator_model(run: Pretraining, tokenizer: Tokenizer, objective: WithGenerator) -> Model:
    """The generator on its own modules: in the run's family, or in the first one that can express it with its decoder."""
    config, decoder = objective.generator.config, objective.settings.decoder
    families = sorted(BY_NAME.values(), key=lambda one: one.name != run.family)
    with torch.device("meta"):
        models = [
            Model(
                family,
                Spec(config, with_decoder(Heads(masked_lm=run.head), decoder, family, config), pad_id=tokenizer.pad_id or 0),
                tokenizer,
                name=family.name,
            )
            for family in families
        ]
    model = next(one for one in models if (decoder is None or "mask_decoder" in one.heads) and _expressed(one))
    model.encoder, model.heads["masked_lm"] = objective.generator, objective.generator_head
    if "mask_decoder" in model.heads:
        assert isinstance(objective, ReplacedTokenDetection)
        assert objective.decoder is not None
        model.heads["mask_decoder"] = objective.decoder
    return model


def with_decoder(heads: Heads, decoder: object, family: Family, encoder: EncoderConfig) -> Heads:
    """The heads, and an enhanced mask decoder where the family's folders have a place for it.

    Absolute positions that the embedding adds leave none for those of the decoder in folders of DeBERTa.
    """
    place = "mask_decoder" in family.marks and (encoder.embedding.position is None or family is mixture.FAMILY)
    if isinstance(decoder, MaskDecoderHead) and place:
        return replace(heads, mask_decoder=decoder)
    return heads


def _expressed(model: Model) -> bool:
    """Whether the model's family can save it."""
    try:
        check_expressed(model)
    except InputError:
        return False
    return True


def detection_figures(objective: ReplacedTokenDetection, batches: Sequence[Any], device: str) -> dict[str, float]:
    """Held-out means, with the weighted loss, recall and precision."""
    found = weighted_averages(objective, batches, device, objective.names)
    figures = {name: found[name] for name in ("loss", *objective.names) if name in found}
    shares = {name: figures.pop(name) for name in ("share_flagged", "share_found")}
    return {**figures, **detection({**figures, **shares})}


def detection_groups(objective: WithGenerator, optimizer: Optimizer) -> tuple[Group, ...] | None:
    """Parameter groups with the generator apart; None where its learning rate and clipping are the discriminator's."""
    factor, own = objective.settings.generator_lr, objective.of_generator()
    apart = objective.settings.clipping is not None
    if factor == 1.0 and not apart:
        return None
    groups: list[Group] = []
    for group in default_groups(optimizer, objective):
        groups.append(replace(group, holds=_held(group, own, False)))
        groups.append(
            replace(
                group,
                name=f"generator's {group.name}",
                lr=group.lr * factor,
                holds=_held(group, own, True),
                clip="generator" if apart else group.clip,
            )
        )
    return tuple(groups)


def _held(group: Group, own: frozenset[nn.Parameter], wanted: bool) -> Callable[[str, nn.Parameter], bool]:
    return lambda name, one: (one in own) == wanted and group.holds(name, one)
