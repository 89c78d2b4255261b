"""A run's objective and models: which modules are trained, what is measured of them, what is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from bothways.data.tokenizer import Tokenizer
from bothways.data.vocabulary import Vocabulary
from bothways.encoder.encoder import Encoder
from bothways.encoder.initialisation import initialise
from bothways.errors import InputError
from bothways.families import BY_NAME
from bothways.families.family import Heads, Spec
from bothways.layers.heads import Classifier, MaskedLm
from bothways.model.model import Model
from bothways.objectives.auto_encoding import AutoEncoding
from bothways.objectives.causal_lm import CausalLanguageModeling
from bothways.objectives.decoded_lm import DecodedLanguageModeling
from bothways.objectives.masked_lm import MaskedLanguageModeling
from bothways.objectives.masked_views import MaskedViews
from bothways.objectives.ngram_lm import NGramLanguageModeling
from bothways.objectives.ngram_relations import NGramRelationModeling
from bothways.objectives.replaced_token import ReplacedTokenDetection
from bothways.objectives.sentence_pair import PairedLanguageModeling
from bothways.objectives.sharing import folded
from bothways.recipes import detecting, gramming, text_vectors
from bothways.recipes.carrying_out import Say, averages, check_compiled
from bothways.recipes.continuing import Objectives, heads_of, take_over
from bothways.recipes.masks import check_schedule
from bothways.recipes.runs import Pretraining
from bothways.recipes.word_vectors import check_word_vectors

# Micro-batches of held-out text: a fixed sample, always the same masks
EVALUATED = 20
# Train metrics that reports plot
_METRICS = ("accuracy", "masked", "mask_token")


def build(run: Pretraining, vocabulary: Vocabulary, say: Say = lambda line: None) -> Objectives:
    """The objective, with fresh weights, a function of the seed, or those of the model it starts from.

    Args:
        say: told of what that model has and the run leaves behind.
    """
    objective = unfilled(run, vocabulary)
    if isinstance(objective, ReplacedTokenDetection):
        detecting.initialise_detection(objective, run.training.seed)
    elif isinstance(objective, NGramRelationModeling):
        gramming.initialise_relations(objective, run.training.seed)
    else:
        initialise(objective, run.encoder.initialisation, run.encoder.num_layers, run.training.seed)
    if run.start is not None:
        take_over(objective, run, saved_heads(run).present(), say)
    return objective


def unfilled(run: Pretraining, vocabulary: Vocabulary) -> Objectives:
    """The objective, whose weights are whatever torch makes of them."""
    if run.ngrams is not None:
        return gramming.unfilled_ngrams(run, run.ngrams, vocabulary)
    if run.replaced_tokens is not None:
        return detecting.unfilled_detection(run, run.replaced_tokens, vocabulary)
    encoder = Encoder(run.encoder)
    head = MaskedLm(run.head, run.encoder.hidden_size, run.encoder.vocab_size, run.encoder.embedding.size)
    if run.predicts == "next":
        return CausalLanguageModeling(encoder, head)
    if run.vectors is not None:
        return text_vectors.unfilled_vectors(run, run.vectors, encoder, head, vocabulary)
    masked: MaskedLanguageModeling | DecodedLanguageModeling
    if run.decoder is None:
        masked = MaskedLanguageModeling(encoder, head, run.masking, vocabulary)
    else:
        masked = DecodedLanguageModeling(encoder, head, run.masking, vocabulary, run.decoder)
    if run.pairs is None:
        return masked
    second = Classifier(run.pairs.head, run.encoder.hidden_size)
    return PairedLanguageModeling(masked, second, run.pairs.task.type, run.pairs.weight)


def measured_objective(run: Pretraining, vocabulary: Vocabulary) -> Objectives:
    """The objective without weights, for what it makes of text that is measured on."""
    with torch.device("meta"):
        return unfilled(replace(run, masking=run.masking.measured(run.held_out_rate)), vocabulary)


def assemble(run: Pretraining, tokenizer: Tokenizer, objective: Objectives) -> tuple[Model, Model]:
    """The model a user loads, and the one that fills in masked tokens, on the very modules that are trained."""
    if isinstance(objective, ReplacedTokenDetection):
        discriminator = detecting.discriminator_model(run, tokenizer, objective)
        return discriminator, detecting.generator_model(run, tokenizer, objective)
    family = BY_NAME[run.family]
    spec = Spec(encoder=run.encoder, heads=saved_heads(run), pad_id=tokenizer.pad_id or 0)
    with torch.device("meta"):
        model = Model(family, spec, tokenizer, text_vectors.settings_for(run), name=run.family)
    model.encoder = objective.encoder
    for name, head in heads_of(objective).items():
        if name in model.heads:
            model.heads[name] = head
    if isinstance(objective, NGramRelationModeling):
        model.encoder = folded(objective.encoder)
        return model, detecting.generator_model(run, tokenizer, objective)
    return model, model


def saved_heads(run: Pretraining) -> Heads:
    """What is saved of what is trained: all that the family's folders have a place for."""
    family = BY_NAME[run.family]
    if run.replaced_tokens is not None and run.ngrams is None:
        return detecting.detector_heads(run.replaced_tokens, family)
    heads = Heads(masked_lm=run.head if text_vectors.fills(run) else None)
    if run.pairs is not None and run.pairs.task.type in family.marks:
        heads = replace(heads, **{run.pairs.task.type: run.pairs.head})
    return detecting.with_decoder(heads, run.decoder, family, run.encoder)


def figures(objective: Objectives, batches: Sequence[Any], device: str) -> Mapping[str, float]:
    """What evaluation lines say of held-out batches."""
    names = ("loss", "accuracy")
    match objective:
        case ReplacedTokenDetection():
            return detecting.detection_figures(objective, batches, device)
        case NGramLanguageModeling() | NGramRelationModeling():
            return gramming.ngram_figures(objective, batches, device)
        case AutoEncoding() | MaskedViews():
            return text_vectors.vector_figures(objective, batches, device)
        case PairedLanguageModeling():
            return averages(objective, batches, device, (*names, *(f"{objective.name}/{name}" for name in names)))
        case _:
            return averages(objective, batches, device, names)


def metrics(objective: Objectives) -> tuple[str, ...]:
    """Train metrics that reports plot."""
    match objective:
        case ReplacedTokenDetection():
            return detecting.METRICS
        case NGramLanguageModeling() | NGramRelationModeling():
            return gramming.METRICS
        case AutoEncoding() | MaskedViews():
            return text_vectors.vector_metrics(objective)
        case PairedLanguageModeling():
            return (*_METRICS, f"{objective.name}/accuracy")
        case _:
            return _METRICS


def check_objective(run: Pretraining) -> None:
    """Raises InputError where what a run is to learn contradicts itself, or cannot be built."""
    check_schedule(run)
    text_vectors.check_text_vectors(run)
    for field in ("replaced_tokens", "ngrams"):
        if getattr(run, field) is not None and not replace(run, replaced_tokens=None, ngrams=None).masked_alone:
            raise InputError(f"{field}: goes without pairs, decoder and predicts")
    if run.ngrams is not None and run.replaced_tokens is not None and run.replaced_tokens.decoder is not None:
        raise InputError("replaced_tokens.decoder: goes without ngrams, whose generator reads texts of another length")
    if run.replaced_tokens is not None and run.replaced_tokens.start is not None and run.start is None:
        raise InputError("replaced_tokens.start: a generator that is learned already goes with start, the model beside it")
    if run.pairs is not None and run.pairs.head.labels != 2:
        raise InputError(f"pairs.head.labels: {run.pairs.head.labels}, but a pair is of one of 2 classes")
    if run.predicts == "next" and (run.pairs is not None or run.decoder is not None):
        raise InputError("predicts: the next token goes without pairs and decoder, which are for masked tokens")
    if run.pairs is not None and run.blocks is not None:
        raise InputError("blocks: goes without pairs, which are of whole sentences as it is")
    if run.length_warmup is not None and (run.pairs is not None or run.blocks is not None):
        raise InputError("length_warmup: pairs and blocks are not cut into shorter ones; leave it or them out, or make stages")
    with torch.device("meta"):  # what cannot be built is told of before any text is read
        objective = unfilled(run, gramming.unknown(run))
    check_compiled(run.training, objective)
    check_word_vectors(run, objective)
