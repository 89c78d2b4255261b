"""Counting which tokens stand near which, in tokenised text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int
from pydantic import Field, PositiveInt

from bothways.config import config
from bothways.data.shards import Shards


@config
class Cooccurrence:
    """Word vectors to be made of the run's own text: positive pointwise mutual information, factored.

    Two tokens of a document that are d apart count 1/d towards each other. A token's vector is its row of the left singular
    vectors of the matrix of max(0, log p(token, context) / p(token) p(context)), without the singular values (Levy, Goldberg and
    Dagan 2015, https://aclanthology.org/Q15-1016); ours is that at length 1, less the mean of all, and at length 1 again.

    Attributes:
        window: the largest d.
        smoothing: p(context) goes by frequencies to this power, so that rare contexts do not decide.
        tokens: about so many are counted at most; of text with more, every second document, or every third, and so on.
    """

    type: Literal["cooccurrence"] = "cooccurrence"
    window: PositiveInt = 5
    smoothing: Annotated[float, Field(gt=0, le=1)] = 0.75
    tokens: PositiveInt = 20_000_000


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which tokens were seen behind which.

    Attributes:
        keys: of a pair, its first token times `size` plus its second; in order, each once.
        weights: the sums of 1/distance.
        size: of the vocabulary.
        tokens: how many were gone through.
    """

    keys: Int[np.ndarray, " pairs"]
    weights: Float64[np.ndarray, " pairs"]
    size: int
    tokens: int


def count_pairs(
    settings: Cooccurrence, text: Sequence[tuple[Shards, Int[np.ndarray, " documents"]]], size: int, special: frozenset[int]
) -> Pairs:
    """All pairs within the window and within one document, of the documents chosen of each folder; special tokens have none."""
    marked = np.zeros(size, bool)
    marked[[i for i in special if i < size]] = True
    counted = Pairs(np.zeros(0, np.int64), np.zeros(0), size, 0)
    every = max(-(-sum(int(one.lengths[documents].sum()) for one, documents in text) // settings.tokens), 1)
    for one, documents in text:
        for ids, lengths in one.blocks(documents[::every]):
            parts = [_near(ids, lengths, marked, distance) for distance in range(1, settings.window + 1)]
            keys, places = np.unique(np.concatenate([counted.keys, *(part for part, _ in parts)]), return_inverse=True)
            weights = np.concatenate([counted.weights, *(part for _, part in parts)])
            weights = np.bincount(places, weights=weights, minlength=len(keys))
            counted = Pairs(keys, weights, size, counted.tokens + len(ids))
    return counted


def _near(
    ids: Int[np.ndarray, " tokens"],
    lengths: Int[np.ndarray, " documents"],
    special: Bool[np.ndarray, " vocabulary"],
    distance: int,
) -> tuple[Int[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """The pairs of tokens so far apart, each once, and their weights."""
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(ids))
    first, second = ids[:-distance].astype(np.int64), ids[distance:]
    fits = (left[:-distance] > distance) & ~special[first] & ~special[second]
    keys, counts = np.unique(first[fits] * len(special) + second[fits], return_counts=True)
    return keys, counts / distance
