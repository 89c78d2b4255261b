"""Pretraining that goes on from a model there is: domain adaptation (arXiv 2004.10964)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from torch import nn

from bothways.data.masking import Masking
from bothways.data.packing import TokenBudget
from bothways.errors import InputError
from bothways.families import mixture
from bothways.model.folder import load
from bothways.model.growth import grow
from bothways.model.model import Model
from bothways.objectives.causal_lm import CausalLanguageModeling
from bothways.objectives.decoded_lm import DecodedLanguageModeling
from bothways.objectives.masked_lm import MaskedLanguageModeling
from bothways.objectives.ngram_lm import NGramLanguageModeling
from bothways.objectives.ngram_relations import NGramRelationModeling
from bothways.objectives.replaced_token import ReplacedTokenDetection
from bothways.objectives.sentence_pair import PairedLanguageModeling
from bothways.objectives.sharing import folded, unfold
from bothways.recipes.published import RECIPES
from bothways.recipes.recipe import Budget, Source
from bothways.recipes.runs import GivenTokenizer, Pretraining, Staged
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Linear
from bothways.training.settings import TrainingConfig


def continued(run: Pretraining, start: str, added: Sequence[str] = ()) -> Pretraining:
    """The run with the network, the tokenizer and the weights of a model: a folder, or the id of a repository.

    Samples are no longer than the model reads. A model without a masked-language head (a sentence embedder) gets the run's,
    with fresh weights, where both are of one family, or the model is of none.

    Args:
        added: words that become tokens of the model's, as of `grow`.

    Raises:
        InputError: no such model; one without a tokenizer; a word that cannot be a token; or one
            without a head in another family than the run's.
    """
    model = _begun(start, added)
    # the head of a generator is the run's: no model holds one beside it
    head = model.spec.heads.masked_lm if run.replaced_tokens is None else run.head
    if model.tokenizer is None:
        raise InputError(f"{start}: has no tokenizer, and the new text has to be cut into the pieces that the model knows")
    if head is None and model.family.name not in (run.family, mixture.NAME):
        raise InputError(
            f"{start}: has no masked-language head, and a run of the family {run.family} has none for {model.family.name}; "
            f"choose a recipe of that family"
        )
    encoder = model.spec.encoder
    return replace(
        run,
        family=model.family.name,  # type: ignore[arg-type]  (a test holds FamilyName to the families)
        encoder=encoder,
        head=run.head if head is None else head,
        tokenizer=GivenTokenizer(folder=start, added=tuple(added) or None),
        max_length=min(run.max_length, encoder.max_length),
        start=start,
        embeddings=None,  # the model's are learned
    )


def adaptation(source: Source, budget: Budget, start: str, added: Sequence[str] = ()) -> Pretraining:
    """Go on pretraining a model on texts of another domain, at settings of ours.

    8,192 tokens a step, samples of at most 512, 15 % masked, lr 1e-4 after a short rise and down to nothing. (The paper takes
    2,048 samples a step, which is more than most domains have text for.)

    Raises:
        InputError: as `continued`; a model without a masked-language head gets that of the family's recipe, where there is one.
    """
    family = load(start, device="cpu").family.name
    recipes = [recipe(source, None, "toy") for recipe in RECIPES.values()]
    runs = [run.base if isinstance(run, Staged) else run for run in recipes]
    run = continued(next((one for one in runs if one.family == family), runs[0]), start, added)
    return replace(
        run,
        source=source,
        masking=Masking(rate=0.15),
        batching=TokenBudget(tokens=8192),
        training=TrainingConfig(optimizer=AdamW(lr=1e-4), schedule=Linear(), budget=budget),
        max_length=min(run.encoder.max_length, 512),
        blocks=None,
    )


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
)
"""What a run of pretraining trains: an encoder and a head, whatever stands beside them."""


def take_over(objective: Objectives, start: str, family: str, added: Sequence[str] | None = None) -> None:
    """Copy a model's weights into an objective's modules; a head that the model lacks keeps its own, and so does a generator.

    Args:
        added: tokens that are added to the model first.

    Raises:
        InputError: a model of another family, or of another shape; the message names the first weight that differs.
    """
    model = _begun(start, added or ())
    if family not in (model.family.name, mixture.NAME):
        raise InputError(f"start: {start} is of the family {model.family.name}, the run's is {family}")
    encoder = folded(objective.encoder)
    parts: list[tuple[str, nn.Module, nn.Module]] = [("encoder", encoder, model.encoder)]
    head = "replaced_token" if isinstance(objective, ReplacedTokenDetection) else "masked_lm"
    if head in model.heads:
        parts.append(("head", objective.head, model.heads[head]))
    if isinstance(objective, PairedLanguageModeling) and objective.name in model.heads:
        parts.append(("pair_head", objective.pair_head, model.heads[objective.name]))
    for part, ours, theirs in parts:
        mine, given = ours.state_dict(), theirs.state_dict()
        for name in mine.keys() | given.keys():
            shapes = [tuple(one[name].shape) if name in one else "absent" for one in (given, mine)]
            if shapes[0] != shapes[1]:
                raise InputError(f"start: {part}.{name} is {shapes[0]} in {start}, this run's is {shapes[1]}")
        ours.load_state_dict(given)
    unfold(objective.encoder, encoder)
