"""Explicit n-grams as a run: their lexicon, their objectives put together, what is measured of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from bothways.data.lexicon import CountedLexicon, GivenLexicon, Lexicon
from bothways.data.lexicon_building import build_lexicon
from bothways.data.tokenizer import Tokenizer
from bothways.data.vocabulary import Vocabulary
from bothways.encoder.encoder import Encoder
from bothways.encoder.generator import generator_of
from bothways.layers.heads import MaskedLm
from bothways.layers.replaced_token import ReplacedToken
from bothways.objectives.ngram_lm import ExplicitNGrams, NGramLanguageModeling
from bothways.objectives.ngram_relations import NGramRelationModeling
from bothways.recipes.carrying_out import Say, averages
from bothways.recipes.corpus import Opened
from bothways.recipes.detecting import initialise_both
from bothways.recipes.runs import Pretraining
from bothways.training.step import loss

# The lexicon of a run, in its folder
LEXICON = "lexicon.safetensors"
# Train metrics that reports plot
METRICS: tuple[str, ...] = ("accuracy", "fine_accuracy", "ngrams", "shortened", "masked", "discriminator_accuracy")
_MEASURED = ("accuracy", "fine", "fine_accuracy", "ngrams", "shortened", "generator", "generator_accuracy", "replaced")


def prepare_lexicon(
    source: CountedLexicon | GivenLexicon, folder: Path, tokenizer: Tokenizer, opened: Sequence[Opened], say: Say
) -> Lexicon:
    """The run's lexicon: given, or counted in its text, held-out documents with it; kept in the folder, and read from there.

    Raises:
        InputError: as `Lexicon.load` and `build_lexicon`.
    """
    place = folder / LEXICON
    if not place.exists():
        if isinstance(source, GivenLexicon):
            made = Lexicon.load(Path(source.file), tokenizer)
        else:
            say("counting n-grams")
            shards = {one.shards.folder: one.shards for one in opened}
            made = build_lexicon(source, list(shards.values()), tokenizer)
        made.save(place)
    lexicon = Lexicon.load(place, tokenizer)
    parts = (f"{count:,} of {length} tokens" for length, count in enumerate(lexicon.sizes, start=2))
    say(f"{len(lexicon):,} n-grams: {', '.join(parts)}")
    return lexicon


def unknown(run: Pretraining, specials: int = 1) -> Vocabulary:
    """As `Vocabulary.unknown`, with as many n-grams as the run's lexicon has at most."""
    plain = Vocabulary.unknown(run.encoder.vocab_size, specials)
    if run.ngrams is None:
        return plain
    source = run.ngrams.lexicon
    sizes = source.sizes if isinstance(source, CountedLexicon) else Lexicon.read(Path(source.file)).sizes
    return replace(plain, lexicon=Lexicon.unknown(plain.size, sizes, specials))


def unfilled_ngrams(
    run: Pretraining, ngrams: ExplicitNGrams, vocabulary: Vocabulary
) -> NGramLanguageModeling | NGramRelationModeling:
    """The objective, whose weights are whatever torch makes of them."""
    masked = NGramLanguageModeling(*_with_head(run, Encoder(run.encoder)), ngrams, run.masking, vocabulary)
    settings = run.replaced_tokens
    if settings is None:
        return masked
    detector = ReplacedToken(settings.head, run.encoder.hidden_size)
    generator = Encoder(generator_of(settings.generator, run.encoder))
    return NGramRelationModeling(masked, detector, *_with_head(run, generator), settings)


def _with_head(run: Pretraining, encoder: Encoder) -> tuple[Encoder, MaskedLm]:
    config = encoder.config
    return encoder, MaskedLm(run.head, config.hidden_size, config.vocab_size, config.embedding.size)


def initialise_relations(objective: NGramRelationModeling, seed: int) -> None:
    """Fresh weights, a function of the seed; what is shared begins as the model's does."""
    model = objective.masked
    of_generator = nn.ModuleList([objective.generator_head, objective.generator_ngrams])
    of_model = nn.ModuleList([model.head, model.ngrams, objective.detector])
    initialise_both((objective.generator, of_generator), (model.encoder, of_model), seed)


def ngram_figures(
    objective: NGramLanguageModeling | NGramRelationModeling, batches: Sequence[Any], device: str
) -> Mapping[str, float]:
    """Held-out means, with the weighted loss."""
    found = averages(objective, batches, device, {*objective.weights, *_MEASURED})
    weighted = loss(objective.weights, found)
    return {"loss": weighted, "ngram_loss": found["loss"], **{name: found[name] for name in _MEASURED if name in found}}
