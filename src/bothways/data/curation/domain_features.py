"""What a linear classifier sees of a text: words, pairs of them and character n-grams, hashed into a fixed number of bins."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt64
from pydantic import Field, PositiveInt

from bothways.config import config
from bothways.data.curation.words import hashes, ngrams, normal, words


@config
class Features:
    """Hashed n-grams, each kind scaled to length 1 so that the many characters do not outweigh the words.

    Attributes:
        bits: 2^bits bins for words, and as many for characters.
        words: words in a row, from 1.
        shortest: characters of the shortest character n-gram; they run over words' borders.
        longest: and of the longest.
    """

    bits: Annotated[int, Field(ge=10, le=24)] = 18
    words: PositiveInt = 2
    shortest: PositiveInt = 3
    longest: PositiveInt = 5


Sparse = tuple[Int64[np.ndarray, " bins"], Float64[np.ndarray, " bins"]]


def features(text: str, settings: Features) -> Sparse:
    """The bins that a text fills, rising, and its value in each: 1 + log(count), scaled. No words, no bins."""
    found = words(text)
    items = hashes(found)
    letters = np.frombuffer(" ".join(map(normal, found)).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    letters = (letters + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93)
    by_words = [ngrams(items, size) for size in range(1, settings.words + 1)]
    by_letters = [ngrams(letters, size) for size in range(settings.shortest, settings.longest + 1)]
    blocks = [_block(grams, settings.bits, block) for block, grams in enumerate((by_words, by_letters))]
    return np.concatenate([bins for bins, _ in blocks]), np.concatenate([values for _, values in blocks])


def score(text: str, settings: Features, weights: Float32[np.ndarray, " bins"], bias: float) -> float:
    """The probability that a linear model gives a text, in [0, 1]."""
    bins, values = features(text, settings)
    logit = float(np.sum(values * weights[bins])) + bias
    return float(1 / (1 + np.exp(-np.clip(logit, -60, 60))))


def _block(grams: list[UInt64[np.ndarray, " _"]], bits: int, block: int) -> Sparse:
    # the best bits of a product are its top ones; n-grams of different sizes are told apart by their number
    mixed = [(one + np.uint64(size)) * np.uint64(0xFF51AFD7ED558CCD) for size, one in enumerate(grams)]
    bins = (np.concatenate(mixed) >> np.uint64(64 - bits)).astype(np.int64)
    if len(bins) > 1 << (bits - 3):  # counting all bins costs less than sorting a long text
        every = np.bincount(bins, minlength=1 << bits)
        bins = np.flatnonzero(every)
        counts = every[bins]
    else:
        bins, counts = np.unique(bins, return_counts=True)
    values = 1 + np.log(counts.astype(np.float64))
    return bins + (block << bits), values / max(float(np.sqrt(np.sum(values**2))), 1e-12)
