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
from bothways.data.token_data import of_length, room_of
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import train_tokenizer
from bothways.errors import InputError
from bothways.recipes.corpus import given, parts_of
from bothways.recipes.runs import GivenTokenizer, Pretraining

# Characters that are tokenised, and seconds for which the rest is read only to be counted
_CHARACTERS, _SECONDS = 2_000_000, 10.0
# Documents of a text that is only assumed: enough for some full windows of batches
_ASSUMED = 512
_OWN = "; by a tokenizer of that text alone"


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
    """A look at the beginning of each source of a run, with the tokenizer that is given, or one made of that beginning alone.

    Raises:
        InputError: text that cannot be read, or none; tokenised text, and no tokenizer.
    """
    parts = parts_of(run.source)
    looks = [None if isinstance(part.source, TokenFolder) else _look(part.source, len(parts)) for part in parts]
    tokenizer = _tokenizer(run, [text for look in looks if look for text in look.texts])
    room, around = room_of(tokenizer, run.max_length), tokenizer.specials_per_sequence
    found = [_counted(part, look, tokenizer) for part, look in zip(parts, looks, strict=True)]
    if run.by_length:
        weighed = [(one.weight, found[0].tokens[found[0].tokens >= one.at_least]) for one in run.by_length]
    else:
        weighed = [(part.weight, one.tokens) for part, one in zip(parts, found, strict=True)]
    if run.blocks is not None and run.blocks.across:  # samples run on from document to document, and are taken to be full
        weighed = [(weight, tokens.sum(keepdims=True)) for weight, tokens in weighed]
    lengths = [_cut(tokens, room) + around for _, tokens in weighed]
    if not all(map(len, lengths)):
        raise InputError("no text at the beginning of a source: nothing to plan with")
    special = around / np.concatenate(lengths).mean()
    return PlannedText(
        lengths=_together([weight for weight, _ in weighed], lengths),
        about=", ".join(one.about for one in found) + ("" if isinstance(run.tokenizer, GivenTokenizer) else _OWN),
        tokens=round(sum(one.total for one in found) / (1 - special)),
        whole=all(one.whole for one in found),
    )


@dataclass(frozen=True, eq=False)
class _Look:
    """The first texts of a source, their characters and those behind them; and whether that is all."""

    texts: list[str]
    characters: int
    rest: int
    whole: bool


@dataclass(frozen=True, eq=False)
class _Counted:
    """Documents of a source by their content tokens, and how many tokens there are in all."""

    tokens: Int[np.ndarray, " documents"]
    total: float
    whole: bool
    about: str


def _look(source: TextFiles | Column, sources: int) -> _Look:
    texts: list[str] = []
    characters = rest = 0
    end, wanted = time.monotonic() + _SECONDS / sources, _CHARACTERS // sources
    for document in read_documents(source):
        if characters < wanted:
            texts.append(document.text)
            characters += len(document.text)
        else:
            rest += len(document.text)
            if time.monotonic() > end:
                return _Look(texts, characters, rest, whole=False)
    if not characters:
        raise InputError("there is no text to plan with")
    return _Look(texts, characters, rest, whole=True)


def _counted(part: Part, look: _Look | None, tokenizer: Tokenizer) -> _Counted:
    if look is None:
        assert isinstance(part.source, TokenFolder), "text is looked at"
        shards = Shards(Path(part.source.folder), tokenizer, check="sizes")
        tokens = shards.lengths[of_length(shards.lengths, part.source.at_least, part.source.at_most)]
        return _Counted(tokens, float(tokens.sum()), True, f"{len(tokens):,} tokenised documents")
    tokens = np.array([len(ids) for ids in tokenizer.encode(look.texts, specials=False)], dtype=np.int64)
    total = float(tokens.sum()) * (look.characters + look.rest) / look.characters
    return _Counted(tokens, total, look.whole, f"{len(look.texts):,} documents of {look.characters:,} characters")


def _tokenizer(run: Pretraining, texts: Sequence[str]) -> Tokenizer:
    if isinstance(run.tokenizer, GivenTokenizer):
        return given(run.tokenizer)
    if not texts:
        raise InputError("the text is tokenised: say with which tokenizer")
    return train_tokenizer(run.tokenizer, texts, run.encoder.max_length)


def _cut(counts: Int[np.ndarray, " documents"], room: int) -> Int[np.ndarray, " samples"]:
    """The content tokens of each sample, where documents of these lengths are cut as training cuts them."""
    full = np.full(int((counts // room).sum()), room, dtype=np.int64)
    rest = counts % room
    return np.concatenate([full, rest[rest > 0]])


def _together(weights: Sequence[float], lengths: Sequence[np.ndarray]) -> Int[np.ndarray, " samples"]:
    """Samples of several sources, in shares of the tokens: each repeated, until the one with the most for its share is whole."""
    if len(lengths) == 1:
        return lengths[0]
    most = max(one.sum() / weight for weight, one in zip(weights, lengths, strict=True))
    return np.concatenate([
        np.resize(one, max(round(most * weight / one.mean()), 1)) for weight, one in zip(weights, lengths, strict=True)
    ])  # fmt: skip
