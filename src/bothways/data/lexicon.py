"""A lexicon of n-grams: which tokens in a row are one thing, and where a text has them.

Made of counts by a t-test and read as a file (`data/lexicon_building.py` counts). A text is cut at the boundaries of forward
maximum matching: at each place the longest entry, else a single token (ERNIE-Gram, arXiv 2010.12148).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float64, Int
from pydantic import Field, NonNegativeInt, PositiveInt

from bothways.config import config
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError
from bothways.files import replacing

_FORMAT = "1"


@config
class CountedLexicon:
    """A lexicon to be counted in the run's own text.

    Attributes:
        sizes: how many n-grams of two tokens, of three, and so on: those whose t-statistic is highest. As far as is known,
            ERNIE-Gram's English one has 200,000 and 100,000.
        at_least: how often an n-gram occurs, to be one.
    """

    type: Literal["counted"] = "counted"
    sizes: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (200_000, 100_000)
    at_least: PositiveInt = 5


@config
class GivenLexicon:
    """A lexicon that exists: a file of `bothways lexicon`."""

    type: Literal["given"] = "given"
    file: str


LexiconSource = Annotated[CountedLexicon | GivenLexicon, Field(discriminator="type")]


@dataclass(frozen=True, eq=False)
class Units:
    """A packed text cut into n-grams and single tokens.

    Attributes:
        firsts: the place of each one's first token.
        sizes: in tokens.
        numbers: of the n-gram in the lexicon; -1 of a single token.
    """

    firsts: Int[np.ndarray, " units"]
    sizes: Int[np.ndarray, " units"]
    numbers: Int[np.ndarray, " units"]


@dataclass(frozen=True, eq=False)
class Lexicon:
    """N-grams of token ids, numbered from 0: shorter ones first, and of one length the higher t-statistic first.

    Attributes:
        grams: for each length from 2 on, int32 [n-grams, length].
        scores: their t-statistics.
        vocab_size: ids of tokens are below it.
        tokenizer: the fingerprint of the tokenizer that made the ids.
    """

    grams: tuple[Int[np.ndarray, "_ _"], ...]
    scores: tuple[Float64[np.ndarray, " _"], ...]
    vocab_size: int
    tokenizer: str

    def __len__(self) -> int:
        return sum(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many n-grams there are of each length from 2 on."""
        return tuple(map(len, self.grams))

    @property
    def longest(self) -> int:
        """Tokens of the longest n-gram; 1 where there is none."""
        return max((length for length, count in enumerate(self.sizes, start=2) if count), default=1)

    @classmethod
    def unknown(cls, vocab_size: int, sizes: Sequence[int], specials: int) -> Lexicon:
        """Of which nothing is known but how many entries it has at most: the first of all that there could be."""
        ordinary, grams = vocab_size - specials, []
        for length, count in enumerate(sizes, start=2):
            numbers = np.arange(min(count, ordinary**length))
            columns = [numbers // ordinary**place % ordinary + specials for place in range(length)]
            grams.append(np.stack(columns, axis=1).astype(np.int32))
        return cls(tuple(grams), tuple(np.zeros(len(one)) for one in grams), vocab_size, "")

    def units(self, ids: Int[np.ndarray, " tokens"], lengths: Int[np.ndarray, " sequences"]) -> Units:
        """Cut packed sequences by forward maximum matching; no n-gram lies in two of them."""
        reach, numbers = np.ones(len(ids), np.int64), np.full(len(ids), -1)
        left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(ids))
        offset = 0
        for length, (sorted_keys, order) in enumerate(self._tables, start=2):
            places = np.flatnonzero(left >= length)
            keys = gram_keys(ids, length, self.vocab_size)[places]
            found = np.searchsorted(sorted_keys, keys)
            hit = found < len(sorted_keys)
            hit[hit] = sorted_keys[found[hit]] == keys[hit]
            reach[places[hit]] = length
            numbers[places[hit]] = order[found[hit]] + offset
            offset += len(order)
        firsts = _walk(reach)
        return Units(firsts, reach[firsts], numbers[firsts])

    def tokens(self, number: int) -> tuple[int, ...]:
        """The tokens of the n-gram of this number."""
        for gram in self.grams:
            if number < len(gram):
                return tuple(gram[number].tolist())
            number -= len(gram)
        raise IndexError(number)

    @cached_property
    def _tables(self) -> list[tuple[Int[np.ndarray, " n_grams"], Int[np.ndarray, " n_grams"]]]:
        """For each length, the keys in order, and which n-gram each is of."""
        tables = []
        for gram in self.grams:
            keys = gram_keys(gram.reshape(-1), gram.shape[1], self.vocab_size)[:: gram.shape[1]]
            order = np.argsort(keys, kind="stable")
            tables.append((keys[order], order))
        return tables

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all. Raises InputError where it cannot be written."""
        from safetensors.numpy import save_file

        tensors = {}
        for length, (gram, score) in enumerate(zip(self.grams, self.scores, strict=True), start=2):
            tensors |= {f"ids.{length}": np.ascontiguousarray(gram, np.int32), f"scores.{length}": np.ascontiguousarray(score)}
        said = {"format": _FORMAT, "tokenizer": self.tokenizer, "vocab_size": self.vocab_size, "lengths": len(self.grams)}
        with replacing(path) as partial:
            save_file(tensors, partial, metadata={"lexicon": json.dumps(said)})

    @classmethod
    def load(cls, path: Path, tokenizer: Tokenizer) -> Lexicon:
        """Read a file that `save` has written.

        Raises:
            InputError: no such file, none of ours, or one of another tokenizer.
        """
        made = cls.read(path)
        if made.tokenizer != tokenizer.fingerprint:
            raise InputError(f"{path}: made with another tokenizer; make it again with the one in use")
        return made

    @classmethod
    def read(cls, path: Path) -> Lexicon:
        """The same, whatever tokenizer it is of."""
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise InputError(f"{path}: no such lexicon; make one with `bothways lexicon`")
        try:
            with safe_open(path, framework="numpy") as file:
                said = json.loads((file.metadata() or {}).get("lexicon", "{}"))
                if said.get("format") != _FORMAT:
                    raise InputError(f"{path}: is no lexicon; make one with `bothways lexicon`")
                lengths = range(2, 2 + said["lengths"])
                grams = tuple(file.get_tensor(f"ids.{length}") for length in lengths)
                scores = tuple(file.get_tensor(f"scores.{length}") for length in lengths)
        except SafetensorError as error:
            raise InputError(f"{path}: cannot be read as a lexicon ({error}); make it again with `bothways lexicon`") from None
        return cls(grams, scores, said["vocab_size"], said["tokenizer"])


def gram_keys(ids: Int[np.ndarray, " tokens"], length: int, vocab_size: int) -> Int[np.ndarray, " tokens"]:
    """One number for the `length` tokens from each on; the last ones, which have fewer behind them, have that of zeros there."""
    keys = np.zeros(len(ids), np.int64)
    for place in range(length):
        keys *= vocab_size
        keys[: len(ids) - place] += ids[place:]
    return keys


def _walk(reach: Int[np.ndarray, " tokens"]) -> Int[np.ndarray, " units"]:
    """The places that are come by where each step goes as far as its place reaches."""
    steps, places, place = reach.tolist(), [], 0
    while place < len(steps):
        places.append(place)
        place += steps[place]
    return np.array(places, dtype=np.int64)
