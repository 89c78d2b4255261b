"""Counting n-grams in tokenised text, and the t-test that says which of them are more than their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from jaxtyping import Bool, Float64, Int

from bothways.data.lexicon import CountedLexicon, Lexicon, gram_keys
from bothways.data.shards import Shards
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError

# N-grams that are counted at once: more of them are gone through in several passes over the text
_TOGETHER = 1 << 26

Told = Callable[[int], None]
"""Told of tokens that were gone through; they are so as often as `passes` says."""


@dataclass(frozen=True, eq=False)
class _Counts:
    """The n-grams of one length that occur often enough, by their keys; and how many of that length there are in all."""

    keys: Int[np.ndarray, " n_grams"]
    counts: Int[np.ndarray, " n_grams"]
    total: int


_NOTHING = _Counts(np.zeros(0, np.int64), np.zeros(0, np.int64), 0)


def build_lexicon(
    settings: CountedLexicon, shards: Sequence[Shards], tokenizer: Tokenizer, told: Told = lambda tokens: None
) -> Lexicon:
    """The n-grams of all documents of some folders, by their t-statistics.

    No n-gram goes on from one document into the next, or has a special token. The order of the documents does not matter;
    of n-grams with one statistic, the one of lower ids comes first.

    Raises:
        InputError: ids are too many for n-grams of this length; no n-gram is frequent enough.
    """
    size, longest = tokenizer.vocab_size, len(settings.sizes) + 1
    if size**longest >= 1 << 63:
        raise InputError(
            f"lexicon.sizes: there are too many n-grams of {longest} of {size:,} tokens to number them; leave them out"
        )
    single = sum((one.counts(size) for one in shards), np.zeros(size, np.int64))
    special = np.zeros(size, bool)
    special[[i for i in tokenizer.special_ids if i < size]] = True
    single[special] = 0
    grams, scores = [], []
    for length, wanted in enumerate(settings.sizes, start=2):
        found = _count(shards, special, length, size, settings.at_least, told) if wanted else _NOTHING
        ids = np.stack([found.keys // size**place % size for place in reversed(range(length))], axis=1)
        score = t_statistic(found.counts, single[ids], found.total, int(single.sum()))
        # above 0 alone: what is rarer together than apart is no n-gram
        best = np.lexsort((found.keys, -score))[:wanted]
        best = best[score[best] > 0]
        grams.append(ids[best].astype(np.int32))
        scores.append(score[best])
    made = Lexicon(tuple(grams), tuple(scores), size, tokenizer.fingerprint)
    if not len(made):
        raise InputError(f"lexicon: no n-gram of the text occurs {settings.at_least} times; give more text, or lower at_least")
    return made


def t_statistic(
    counts: Int[np.ndarray, " n_grams"], single: Int[np.ndarray, "n_grams length"], total: int, tokens: int
) -> Float64[np.ndarray, " n_grams"]:
    """(p - p0) / sqrt(p (1 - p) / total), of an n-gram's share p and the product p0 of the shares of its tokens.

    Args:
        counts: how often each occurs, of `total` n-grams of its length.
        single: how often each of its tokens occurs, of `tokens`.
    """
    share = counts / max(total, 1)
    independent = np.prod(single / max(tokens, 1), axis=1)
    spread = np.sqrt(share * (1 - share) / max(total, 1))
    # a text of one n-gram alone has no spread; nothing is surprising about it
    return np.divide(share - independent, spread, out=np.zeros_like(share), where=spread > 0)


def passes(shards: Sequence[Shards], settings: CountedLexicon) -> int:
    """How often all tokens are gone through."""
    return _parts(shards) * sum(1 for wanted in settings.sizes if wanted)


def _parts(shards: Sequence[Shards]) -> int:
    return max(-(-sum(int(one.lengths.sum()) for one in shards) // _TOGETHER), 1)


def _count(
    shards: Sequence[Shards], special: Bool[np.ndarray, " vocabulary"], length: int, size: int, at_least: int, told: Told
) -> _Counts:
    """Exact counts: in each pass over the text of those n-grams whose keys fall to it, so that memory is bounded."""
    parts, keys, counts, total = _parts(shards), [], [], 0
    for part in range(parts):
        of_part = []
        for block, lengths in chain.from_iterable(one.blocks() for one in shards):
            found = _whole(block, lengths, special, length, size)
            told(len(block))
            total += len(found) if part == 0 else 0
            of_part.append(found[found % parts == part])
        some, often = np.unique(np.concatenate(of_part) if of_part else np.zeros(0, np.int64), return_counts=True)
        keys.append(some[often >= at_least])
        counts.append(often[often >= at_least])
    return _Counts(np.concatenate(keys), np.concatenate(counts), total)


def _whole(
    ids: Int[np.ndarray, " tokens"],
    lengths: Int[np.ndarray, " documents"],
    special: Bool[np.ndarray, " vocabulary"],
    length: int,
    size: int,
) -> Int[np.ndarray, " n_grams"]:
    """The keys of the n-grams that lie in one document each, and have no special token."""
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(ids))
    fits = left >= length
    marked = special[ids]
    for place in range(length):
        fits[: len(ids) - place] &= ~marked[place:]
    return gram_keys(ids, length, size)[fits]
