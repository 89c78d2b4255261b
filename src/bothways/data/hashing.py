"""Random numbers as a function of the place they are used at.

A draw is a hash of (seed, epoch, sample, position ...), never the next value of a generator: so it
does not matter who draws, in which order, or what was drawn before. The hash is SplitMix64 (Steele,
Lea and Flood, 2014): its finaliser chained over the parts of a key, then its counter as the index.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int, UInt64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_WORD = (1 << 64) - 1


def keys(seed: int, *parts: int | Int[np.ndarray, " items"], items: Int[np.ndarray, " items"]) -> UInt64[np.ndarray, " items"]:
    """A key for each item (a sample, a document) under a seed and the parts before it (an epoch, or the epoch of each)."""
    state = np.zeros(1, np.uint64)
    for part in (seed, *parts):
        word = np.array([part & _WORD], np.uint64) if isinstance(part, int) else part.astype(np.uint64)
        state = _mix(state + word + _GOLDEN)
    return _mix(state + items.astype(np.uint64) * _GOLDEN)


def draw(keys: UInt64[np.ndarray, " items"], index: Int[np.ndarray, " items"] | int) -> UInt64[np.ndarray, " items"]:
    """The number at `index` (from 0) of each key's own stream: 64 random bits."""
    counter = np.asarray(index, dtype=np.int64).astype(np.uint64) + np.uint64(1)
    return _mix(keys + np.atleast_1d(counter) * _GOLDEN)


def uniform(bits: UInt64[np.ndarray, " items"]) -> Float64[np.ndarray, " items"]:
    """Numbers in [0, 1) from random bits."""
    return (bits >> np.uint64(11)) * 2.0**-53


def below(bits: UInt64[np.ndarray, " items"], limit: int) -> Int[np.ndarray, " items"]:
    """Whole numbers in [0, limit) from random bits; `limit` is at most 2^32 (bias: limit / 2^32)."""
    return (((bits >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)).astype(np.int64)


def _mix(z: UInt64[np.ndarray, " items"]) -> UInt64[np.ndarray, " items"]:
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))
