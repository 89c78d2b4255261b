"""Pretraining that goes on from a model there is: domain adaptation (arXiv 2004.10964)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import nn

from bothways.data.masking import ELECTRA, Masking
from bothways.data.packing import TokenBudget
from bothways.data.tokenizer import Tokenizer
from bothways.encoder.encoder import Encoder
from bothways.encoder.enhanced_mask_decoder import EnhancedMaskDecoder
from bothways.encoder.generator import GivenEncoder, Narrowed
from bothways.errors import InputError
from bothways.families import mixture
from bothways.model.folder import load
from bothways.model.growth import grow
from bothways.model.model import Model
from bothways.objectives.auto_encoding import AutoEncoding
from bothways.objectives.causal_lm import CausalLanguageModeling
from bothways.objectives.decoded_lm import DecodedLanguageModeling
from bothways.objectives.masked_lm import MaskedLanguageModeling
from bothways.objectives.masked_views import MaskedViews
from bothways.objectives.ngram_lm import NGramLanguageModeling
from bothways.objectives.ngram_relations import NGramRelationModeling
from bothways.objectives.replaced_token import ReplacedTokenDetection, ReplacedTokens
from bothways.objectives.sentence_pair import PairedLanguageModeling
from bothways.objectives.sharing import folded, unfold
from bothways.recipes.carrying_out import Say
from bothways.recipes.published import RECIPES
from bothways.recipes.recipe import Budget, Source
from bothways.recipes.runs import GivenTokenizer, Pretraining, Staged
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Linear
from bothways.training.settings import TrainingConfig


def continued(run: Pretraining, start: str, added: Sequence[str] = (), generator: str | None = None) -> Pretraining:
    """The run with the network, the tokenizer and the weights of a model: a folder, or the id of a repository.

    Samples are no longer than the model reads. A model without a masked-language head (a sentence embedder) gets the run's,
    with fresh weights, where both are of one family, or the model is of none. DeBERTa's enhanced mask decoder goes on in front
    of the head that was trained behind it, unless the run has another decoder or a second task.

    Args:
        added: words that become tokens of the model's, as of `grow`.
        generator: the model that fills in masked tokens for a run that learns from replaced ones; None: a fresh one.

    Raises:
        InputError: no such model; one without a tokenizer; a word that cannot be a token; one
            without a head in another family than the run's; or a generator where none is needed, or that cannot be one.
    """
    family = run.family
    model = _begun(start, added)
    if model.tokenizer is None:
        raise InputError(f"{start}: has no tokenizer, and the new text has to be cut into the pieces that the model knows")
    encoder, heads, alone = model.spec.encoder, model.spec.heads, run.masked_alone
    run = replace(
        run,
        family=model.family.name,  # type: ignore[arg-type]  (a test holds FamilyName to the families)
        encoder=encoder,
        tokenizer=GivenTokenizer(folder=start, added=tuple(added) or None),
        max_length=min(run.max_length, encoder.max_length),
        start=start,
        embeddings=None,  # the model's are learned
    )
    detects = run.replaced_tokens is not None and run.ngrams is None
    if not detects and heads.masked_lm is not None:
        run = replace(run, head=heads.masked_lm, decoder=heads.mask_decoder if alone else run.decoder)
    elif not detects and model.family.name not in (family, mixture.NAME):
        raise InputError(
            f"{start}: has no masked-language head, and a run of the family {family} has none for {model.family.name}; "
            f"choose a recipe of that family"
        )
    if run.replaced_tokens is None:
        if generator is not None:
            raise InputError("generator: nothing is replaced in this run; choose a recipe of replaced tokens, or leave it out")
        return run
    run = replace(run, replaced_tokens=replace(run.replaced_tokens, head=heads.replaced_token or run.replaced_tokens.head))
    return run if generator is None else _with_generator(run, generator, added, model.tokenizer)


def _with_generator(run: Pretraining, generator: str, added: Sequence[str], tokenizer: Tokenizer) -> Pretraining:
    """The run with a generator that exists."""
    small, settings = _begun(generator, added), run.replaced_tokens
    assert settings is not None, "of a run that learns from replaced tokens"
    head = small.spec.heads.masked_lm
    if head is None:
        raise InputError(f"{generator}: has no masked-language head, and a generator fills in masked tokens")
    if small.tokenizer is None or small.tokenizer.fingerprint != tokenizer.fingerprint:
        raise InputError(f"{generator}: has not the tokenizer of {run.start}, which would read its tokens as others")
    if run.ngrams is not None and head != run.head:
        raise InputError(
            f"{generator}: its masked-language head is set up otherwise than that of {run.start}; with ngrams both are one"
        )
    network, decoder = GivenEncoder(encoder=small.spec.encoder), small.spec.heads.mask_decoder
    return replace(run, head=head, replaced_tokens=replace(settings, generator=network, decoder=decoder, start=generator))


def adaptation(
    source: Source, budget: Budget, start: str, added: Sequence[str] = (), generator: str | None = None
) -> Pretraining:
    """Go on pretraining a model on texts of another domain, at settings of ours.

    8,192 tokens a step, samples of at most 512, 15 % masked, lr 1e-4 after a short rise and down to nothing. (The paper takes
    2,048 samples a step, which is more than most domains have text for.) What is learned from are masked tokens, whatever else
    the model's recipe had; only a model that has a head for replaced tokens, and none for masked ones, goes on with these:
    ELECTRA's masks, and a generator a quarter as wide unless one is given.

    Raises:
        InputError: as `continued`; a model without a masked-language head gets that of the family's recipe, where there is one.
    """
    model = load(start, device="cpu")
    recipes = [recipe(source, None, "toy") for recipe in RECIPES.values()]
    runs = [run.base if isinstance(run, Staged) else run for run in recipes]
    own = next((one for one in runs if one.family == model.family.name), runs[0])
    detects = model.spec.heads.replaced_token is not None and model.spec.heads.masked_lm is None
    run = replace(
        own,
        decoder=None,
        pairs=None,
        ngrams=None,
        vectors=None,
        predicts="masked",
        replaced_tokens=_detecting(own) if detects else None,
    )
    run = continued(run, start, added, generator)
    published = own.masking if own.replaced_tokens else ELECTRA
    return replace(
        run,
        source=source,
        masking=published if detects else Masking(rate=0.15),
        batching=TokenBudget(tokens=8192),
        training=TrainingConfig(optimizer=AdamW(lr=1e-4), schedule=Linear(), budget=budget),
        max_length=min(run.encoder.max_length, 512),
        blocks=None,
    )


def _detecting(own: Pretraining) -> ReplacedTokens:
    """What a family's recipe says of replaced tokens; a generator that is narrower is a quarter as wide, which divides most."""
    settings = own.replaced_tokens or ReplacedTokens()
    narrower = isinstance(settings.generator, Narrowed) and settings.generator.width < 1
    return replace(settings, generator=Narrowed()) if narrower else settings


def _begun(start: str, added: Sequence[str]) -> Model:
    """The model that a run begins with."""
    model = load(start, device="cpu")
    return grow(model, added).model if added and model.tokenizer is not None else model


Objectives: TypeAlias = (
    MaskedLanguageModeling
    | CausalLanguageModeling
    | DecodedLanguageModeling
    | PairedLanguageModeling
    | ReplacedTokenDetection
    | NGramLanguageModeling
    | NGramRelationModeling
    | AutoEncoding
    | MaskedViews
)
"""What a run of pretraining trains: an encoder and a head, whatever stands beside them."""


def take_over(objective: Objectives, run: Pretraining, saved: Collection[str], say: Say = lambda line: None) -> None:
    """Copy the weights of the models that a run starts from into an objective's modules; what they lack keeps its own.

    Args:
        saved: the heads that the run's model will have.
        say: told of what the run leaves behind of the model, and of what begins fresh.

    Raises:
        InputError: a model of another family, of another shape, or with a head that is set up otherwise; the message names the
            first weight that differs.
    """
    assert run.start is not None, "of a run that goes on from a model"
    added = (run.tokenizer.added if isinstance(run.tokenizer, GivenTokenizer) else None) or ()
    model = _begun(run.start, added)
    if run.family not in (model.family.name, mixture.NAME):
        raise InputError(f"start: {run.start} is of the family {model.family.name}, the run's is {run.family}")
    encoder, heads = folded(objective.encoder), heads_of(objective)
    _copy("start", model, encoder, {name: head for name, head in heads.items() if name in model.heads})
    given = run.replaced_tokens.start if run.replaced_tokens else None
    if given is not None:
        assert isinstance(objective, ReplacedTokenDetection | NGramRelationModeling)
        _take_generator(objective, encoder, _begun(given, added), run.start, say)
    unfold(objective.encoder, encoder, based=given is not None)
    _tell(run.start, model.heads.keys() - set(saved), heads.keys() - model.heads.keys(), say)
    if model.settings.declared and run.vectors is None:
        say(f"{run.start}: how its texts become vectors (pooling, prompts) is not carried over")


def _take_generator(
    objective: ReplacedTokenDetection | NGramRelationModeling, encoder: Encoder, small: Model, start: str, say: Say
) -> None:
    """The weights of a generator that exists; what it shares with the encoder has to be alike."""
    shared, theirs = {id(one) for one in encoder.parameters()}, dict(small.encoder.named_parameters())
    for name, one in objective.generator.named_parameters():
        if id(one) in shared and name in theirs and not torch.equal(one, theirs[name]):
            raise InputError(
                f"replaced_tokens.start: {name} of {small.name} is not that of {start}, and sharing makes both one; set "
                f'replaced_tokens.sharing.type to "disentangled_tables", which keeps the difference, or to "nothing"'
            )
    heads: dict[str, nn.Module] = {"masked_lm": objective.generator_head}
    if isinstance(objective, ReplacedTokenDetection) and objective.decoder is not None:
        heads["mask_decoder"] = objective.decoder
    _copy("replaced_tokens.start", small, objective.generator, heads)
    _tell(small.name, small.heads.keys() - heads.keys(), set(), say)


def _tell(name: str, left: Collection[str], fresh: Collection[str], say: Say) -> None:
    if left:
        say(f"{name}: its {', '.join(sorted(left))} will not be in the model that is saved")
    if fresh:
        say(f"{name}: has no {', '.join(sorted(fresh))}; the run's begins with fresh weights")


def heads_of(objective: Objectives) -> dict[str, nn.Module]:
    """What stands on the encoder, by the names that heads of a model have."""
    if isinstance(objective, ReplacedTokenDetection):
        return {"replaced_token": objective.head}
    heads: dict[str, nn.Module] = {"masked_lm": objective.head}
    if isinstance(objective, PairedLanguageModeling):
        heads[objective.name] = objective.pair_head
    masked = objective.masked if isinstance(objective, PairedLanguageModeling) else objective
    if isinstance(masked, DecodedLanguageModeling) and isinstance(masked.decoder, EnhancedMaskDecoder):
        heads["mask_decoder"] = masked.decoder
    return heads


def _copy(field: str, model: Model, encoder: Encoder, heads: Mapping[str, nn.Module]) -> None:
    """The weights of a model, into an encoder and heads."""
    if missing := heads.keys() - model.heads.keys():
        raise InputError(f"{field}: {model.name} has no {min(missing)}, which this run has")
    pairs = {"encoder": (encoder, model.encoder)} | {one: (ours, model.heads[one]) for one, ours in heads.items()}
    for part, (ours, theirs) in pairs.items():
        mine, given = ours.state_dict(), theirs.state_dict()
        for weight in mine.keys() | given.keys():
            shapes = [tuple(one[weight].shape) if weight in one else "absent" for one in (given, mine)]
            if shapes[0] != shapes[1]:
                raise InputError(f"{field}: {part}.{weight} is {shapes[0]} in {model.name}, this run's is {shapes[1]}")
        if part != "encoder" and ours.config != theirs.config:  # weights of one shape, in another head
            raise InputError(f"{field}: {part} is {theirs.config} in {model.name}, this run's is {ours.config}")
        ours.load_state_dict(given)
