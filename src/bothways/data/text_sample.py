"""A sample of a stream of texts in bounded memory: as good as all of it for what counts words."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np

from bothways.data.hashing import keys

_AT_ONCE = 512


@dataclass(frozen=True)
class TextSample:
    """Texts in the order they came in, and what they are a sample of.

    Attributes:
        read: how many texts there were.
        characters: of the sample.
        read_characters: of all texts.
    """

    texts: tuple[str, ...]
    read: int
    characters: int
    read_characters: int

    @property
    def whole(self) -> bool:
        """Whether every text is in it."""
        return len(self.texts) == self.read

    def __str__(self) -> str:
        if self.whole:
            return f"all {self.read:,} texts ({self.characters:,} characters)"
        share = f"{self.characters / self.read_characters:.1%} of the characters"
        return f"a sample of {len(self.texts):,} of {self.read:,} texts ({self.characters:,} characters, {share})"


def sample_texts(
    texts: Iterable[str], characters: int, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> TextSample:
    """Read all texts once and keep at most `characters` of them, in memory no larger than that.

    Which texts are kept is a function of the seed, of their number in the stream and of their lengths: those of the
    smallest hashes, as many as there is room for. The first of them is kept however long it is.

    Args:
        progress: told of texts and characters read.
    """
    heap: list[tuple[int, int, str]] = []  # the largest hash on top, as heaps are of smallest values
    read = kept = total = 0
    bound = 1 << 64  # hashes from here on were given up, and are never taken again
    rest = iter(texts)
    while batch := list(islice(rest, _AT_ONCE)):
        places = keys(seed, items=np.arange(read, read + len(batch))).tolist()
        for number, (place, text) in enumerate(zip(places, batch, strict=True), read):
            if place >= bound:
                continue
            heapq.heappush(heap, (-place, number, text))
            kept += len(text)
            while kept > characters and len(heap) > 1:
                largest, _, dropped = heapq.heappop(heap)
                bound, kept = -largest, kept - len(dropped)
        length = sum(map(len, batch))
        read, total = read + len(batch), total + length
        if progress is not None:
            progress(len(batch), length)
    ordered = sorted(heap, key=lambda one: one[1])
    return TextSample(tuple(text for _, _, text in ordered), read, kept, total)
