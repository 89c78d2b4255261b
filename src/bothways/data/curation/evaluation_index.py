"""The word n-grams of evaluation sets, kept as hashes, and which of them a text holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int, Int64, UInt32, UInt64

from bothways.data.curation.words import hashes, ngrams, words


@dataclass(frozen=True, slots=True)
class Match:
    """An n-gram of a text that is one of a row: `size` words from the text's word `at`, the row's from `place`."""

    row: int
    at: int
    place: int
    size: int


@dataclass(frozen=True, eq=False)
class _Grams:
    """All n-grams of one size, sorted by hash: 16 bytes each, and 8 to 16 of a filter that answers most queries."""

    size: int
    hashes: UInt64[np.ndarray, " grams"]
    rows: UInt32[np.ndarray, " grams"]
    places: UInt32[np.ndarray, " grams"]
    filter: Bool[np.ndarray, " slots"]

    def find(self, text: UInt64[np.ndarray, " words"]) -> Iterator[Match]:
        grams = ngrams(text, self.size)
        slots = grams & np.uint64(len(self.filter) - 1)
        places = np.flatnonzero(self.filter[slots.astype(np.int64)])
        first = np.searchsorted(self.hashes, grams[places])
        right = self.hashes[np.minimum(first, len(self.hashes) - 1)] == grams[places]
        for at, begin in zip(places[right].tolist(), first[right].tolist(), strict=True):
            for found in range(begin, int(np.searchsorted(self.hashes, grams[at], "right"))):
                yield Match(int(self.rows[found]), at, int(self.places[found]), self.size)


@dataclass(eq=False)
class EvaluationIndex:
    """Rows by the n-grams in them. A row of fewer than `size` words is one n-gram, of all its words.

    Attributes:
        size: words of an n-gram.
        shortest: rows of fewer words are told by nothing and left out.
        lengths: words of each row that was indexed, by its number; rows left out are not counted.
    """

    size: int
    shortest: int
    lengths: Int64[np.ndarray, " rows"] = field(init=False)
    _grams: list[_Grams] = field(init=False, default_factory=list)

    def fill(self, texts: Iterable[str]) -> None:
        """Index rows, numbered from 0 in their order."""
        lengths: list[int] = []
        found: dict[int, list[tuple[UInt64[np.ndarray, " _"], int]]] = {}
        for row, text in enumerate(texts):
            items = hashes(words(text))
            lengths.append(len(items))
            if len(items) >= self.shortest:
                size = min(self.size, len(items))
                found.setdefault(size, []).append((ngrams(items, size), row))
        self.lengths = np.array(lengths, np.int64)
        self._grams = [_sorted(size, found[size]) for size in sorted(found)]

    @property
    def indexed(self) -> Bool[np.ndarray, " rows"]:
        """Which rows are long enough to be told."""
        return self.lengths >= self.shortest

    @property
    def count(self) -> int:
        return sum(len(grams.hashes) for grams in self._grams)

    def find(self, text: str) -> list[Match]:
        """Every n-gram of the text that is one of a row, by size and then as the text has them."""
        items = hashes(words(text))
        return [match for grams in self._grams for match in grams.find(items)]


def covered(matches: Iterable[Match], words: int) -> Int[np.ndarray, " covered"]:
    """Which words of a row its matches cover, by number; the row has `words`."""
    flags = np.zeros(words, bool)
    for match in matches:
        flags[match.place : match.place + match.size] = True
    return np.flatnonzero(flags)


def _sorted(size: int, found: list[tuple[UInt64[np.ndarray, " _"], int]]) -> _Grams:
    grams = np.concatenate([one for one, _ in found])
    rows = np.concatenate([np.full(len(one), row, np.uint32) for one, row in found])
    places = np.concatenate([np.arange(len(one), dtype=np.uint32) for one, _ in found])
    order = np.argsort(grams, kind="stable")
    present = np.zeros(1 << max(16, int(8 * len(grams)).bit_length()), bool)
    present[(grams & np.uint64(len(present) - 1)).astype(np.int64)] = True
    return _Grams(size, grams[order], rows[order], places[order], present)
