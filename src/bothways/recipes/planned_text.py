"""What a plan knows of a run's text: how long its samples are and how many tokens it has, from a look of a few seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from bothways.data.mixture import Part, TokenFolder
from bothways.data.sample import Sample
from bothways.data.shards import Shards
from bothways.data.source import Column, TextFiles, read_documents
from bothways.data.token_data import of_length
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import train_tokenizer
from bothways.errors import InputError
from bothways.recipes.corpus import parts_of
from bothways.recipes.runs import GivenTokenizer, Pretraining

# Characters that are tokenised, and seconds for which the rest is read only to be counted
_CHARACTERS, _SECONDS = 2_000_000, 10.0
# Documents of a text that is only assumed: enough for some full windows of batches
_ASSUMED = 512


@dataclass(frozen=True, eq=False)
class PlannedText:
    """Samples to measure with, and what there is in all.

    Attributes:
        lengths: int64 [samples], tokens of each sample, special tokens included.
        about: where the lengths are from.
        tokens: of the whole text, special tokens included; None where there is none.
        whole: whether the text was read to its end; else there are more tokens than that.
    """

    lengths: Int[np.ndarray, " samples"]
    about: str
    tokens: int | None = None
    whole: bool = True


@dataclass(frozen=True, eq=False)
class Invented:
    """A data set of samples of these lengths, whose tokens are drawn at random from `ids`."""

    lengths: Int[np.ndarray, " samples"]
    ids: range

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Sample:
        draw = np.random.default_rng(number)
        ids = draw.integers(self.ids.start, self.ids.stop, int(self.lengths[number]), dtype=np.int32)
        return Sample(number, (ids,))


def assumed(run: Pretraining) -> PlannedText:
    """No text is given: every sample is as long as the run allows."""
    lengths = np.full(_ASSUMED, run.max_length, dtype=np.int64)
    return PlannedText(lengths, f"no text given: all samples of {run.max_length:,} tokens")


def sampled(run: Pretraining) -> PlannedText:
    """A look at the beginning of a run's text, with the tokenizer that is given, or one made of that beginning alone.

    Of a folder of tokens, all lengths are known. The samples of a mixture are those of its parts in the parts' shares of the tokens.

    Raises:
        InputError: text that cannot be read, or none.
    """
    parts = parts_of(run.source)
    looks = [_look(run, part) for part in parts]
    if len(looks) == 1:
        return looks[0]
    most = max(int(look.lengths.sum()) / part.weight for look, part in zip(looks, parts, strict=True))
    lengths = [_filled(look.lengths, most * part.weight) for look, part in zip(looks, parts, strict=True)]
    return PlannedText(
        np.concatenate(lengths),
        "; ".join(f"{part.name}: {look.about}" for look, part in zip(looks, parts, strict=True)),
        sum(look.tokens or 0 for look in looks),
        all(look.whole for look in looks),
    )


def _filled(lengths: Int[np.ndarray, " samples"], tokens: float) -> Int[np.ndarray, " more"]:
    """The same lengths, again and again, up to so many tokens."""
    times = np.tile(lengths, -(-int(tokens) // int(lengths.sum())))
    return times[: int(np.searchsorted(np.cumsum(times), tokens)) + 1]


def _look(run: Pretraining, part: Part) -> PlannedText:
    if isinstance(part.source, TokenFolder):
        return _counted(run, part.source)
    texts, characters, rest, whole = _beginning(part.source)
    tokenizer = _tokenizer(run, texts)
    counts = np.array([len(ids) for ids in tokenizer.encode(texts, specials=False)], dtype=np.int64)
    lengths = _samples(counts, run.max_length, tokenizer)
    tokens = round(int(lengths.sum()) * (characters + rest) / characters)
    made = "the given tokenizer" if isinstance(run.tokenizer, GivenTokenizer) else "a tokenizer of that text alone"
    return PlannedText(lengths, f"{len(texts):,} documents, {characters:,} characters, by {made}", tokens, whole)


def _counted(run: Pretraining, source: TokenFolder) -> PlannedText:
    """A folder of tokens, with the tokenizer that made it."""
    tokenizer = _tokenizer(run, ())
    counts = Shards(Path(source.folder), tokenizer, "sizes").lengths
    chosen = counts[of_length(counts, source.at_least, source.at_most)].astype(np.int64)
    lengths = _samples(chosen, run.max_length, tokenizer)
    return PlannedText(lengths, f"{len(chosen):,} documents of {source.folder}", int(lengths.sum()))


def _samples(counts: Int[np.ndarray, " documents"], max_length: int, tokenizer: Tokenizer) -> Int[np.ndarray, " samples"]:
    """The lengths of the samples of documents of so many tokens.

    Raises:
        InputError: no room for text, or no text.
    """
    room = max_length - tokenizer.specials_per_sequence
    if room < 1:
        raise InputError(f"max_length {max_length} leaves no room beside {tokenizer.specials_per_sequence} special tokens")
    lengths = _cut(counts, room) + tokenizer.specials_per_sequence
    if not len(lengths):
        raise InputError("no text in the first documents: nothing to plan with")
    return lengths


def _beginning(source: TextFiles | Column) -> tuple[list[str], int, int, bool]:
    """The first texts, their characters, those of the texts behind them, and whether that is all."""
    texts: list[str] = []
    characters = rest = 0
    end = time.monotonic() + _SECONDS
    for document in read_documents(source):
        if characters < _CHARACTERS:
            texts.append(document.text)
            characters += len(document.text)
        else:
            rest += len(document.text)
            if time.monotonic() > end:
                return texts, characters, rest, False
    if not characters:
        raise InputError("there is no text to plan with")
    return texts, characters, rest, True


def _tokenizer(run: Pretraining, texts: Sequence[str]) -> Tokenizer:
    if isinstance(run.tokenizer, GivenTokenizer):
        return Tokenizer.load(Path(run.tokenizer.folder))
    return train_tokenizer(run.tokenizer, texts, run.encoder.max_length)


def _cut(counts: Int[np.ndarray, " documents"], room: int) -> Int[np.ndarray, " samples"]:
    """The content tokens of each sample, where documents of these lengths are cut as training cuts them."""
    full = np.full(int((counts // room).sum()), room, dtype=np.int64)
    rest = counts % room
    return np.concatenate([full, rest[rest > 0]])
