"""Whole words, spans and n-grams in packed sequences: which are selected, and what decides for each.

Published codes go through the words of a text in a random order, take what they meet, and leave out what is taken. Here every
word has a random time, and what is taken follows from all times at once, with the same outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, UInt64

from bothways.data.hashing import draw, uniform
from bothways.data.mask_units import NGrams, Spans, WholeWords, Windows, WordUnits


@dataclass(frozen=True, eq=False)
class Words:
    """The words of packed sequences that may be selected, in the order of the text.

    Attributes:
        places: of the first token of each word, in the batch.
        sizes: in tokens.
        sequences: the number of each word's sequence.
        room: how many words stand together from each one on, itself among them: up to a special token, or its sequence's end.
    """

    places: Int[np.ndarray, " words"]
    sizes: Int[np.ndarray, " words"]
    sequences: Int[np.ndarray, " words"]
    room: Int[np.ndarray, " words"]

    @classmethod
    def of(
        cls,
        joined: Bool[np.ndarray, " tokens"],
        eligible: Bool[np.ndarray, " tokens"],
        sequences: Int[np.ndarray, " tokens"],
    ) -> Words:
        """Args:
        joined: whether each token is of the same word as the one before it.
        eligible: whether the word that a token begins may be selected.
        """
        starts = np.flatnonzero(~joined)
        kept = np.flatnonzero(eligible[starts])
        places, owners = starts[kept], sequences[starts[kept]]
        ends = np.flatnonzero(np.append((np.diff(kept) != 1) | (np.diff(owners) != 0), True))
        each = np.arange(len(kept))
        return cls(places, np.diff(starts, append=len(joined))[kept], owners, ends[np.searchsorted(ends, each)] - each + 1)

    def tokens(self, words: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " tokens"]:
        """The places of all tokens of some words, word after word."""
        return _stretches(self.places[words], self.sizes[words])


@dataclass(frozen=True, eq=False)
class Candidates:
    """Words in the order in which they are to be taken, those of the first sequence before those of the next.

    Attributes:
        words: their numbers; each at most once.
        leaders: the word that each belongs to: the first of its span or n-gram, or itself. Words of one leader are in a row.
    """

    words: Int[np.ndarray, " candidates"]
    leaders: Int[np.ndarray, " candidates"]


def select(
    units: WordUnits,
    words: Words,
    scopes: Int[np.ndarray, " words"],
    wanted: Int[np.ndarray, " scopes"],
    draws: UInt64[np.ndarray, " words"],
    lengths: UInt64[np.ndarray, " words"],
    owners: UInt64[np.ndarray, " sequences"],
    rate: float,
) -> Candidates:
    """The words to select, and what decides for each.

    Args:
        scopes: the number of what each word is counted with: its sequence, or the whole batch.
        wanted: tokens of each scope.
        draws, lengths: random bits of each word: of when it comes, and of how many words it leads.
        owners: the key of each sequence.
    """
    if isinstance(units, Windows):
        return _taken_of(_windowed(units, words, owners, rate), words, scopes, wanted)
    # any token may be the one a span is placed at: the first arrival of several is as if each had its own
    times = -np.log1p(-uniform(draws)) / words.sizes if isinstance(units, Spans) else uniform(draws)
    reach = np.ones_like(words.sizes)
    if not isinstance(units, WholeWords):
        reach = np.minimum(drawn_lengths(units.chances, lengths), words.room)
    # what comes late is seldom needed; where it is, all is looked at again, so that this changes nothing
    likely = (1.5 * wanted + 3 * np.sqrt(wanted)) / np.maximum(np.bincount(scopes, words.sizes * reach, len(wanted)), 1)
    early = times < likely[scopes]
    some = _taken_of(_candidates(units, times, reach, scopes, early), words, scopes, wanted)
    short = (np.bincount(scopes[some.words], words.sizes[some.words], len(wanted)) < wanted)[scopes]
    if early[short].all():
        return some
    rest = _taken_of(_candidates(units, times, reach, scopes, short), words, scopes, wanted)
    enough = ~short[some.words]
    both = zip((some.words[enough], some.leaders[enough]), (rest.words, rest.leaders), strict=True)
    return Candidates(*(np.concatenate(parts) for parts in both))


def _candidates(
    units: WholeWords | Spans | NGrams,
    times: Float64[np.ndarray, " words"],
    reach: Int[np.ndarray, " words"],
    scopes: Int[np.ndarray, " words"],
    looked_at: Bool[np.ndarray, " words"],
) -> Candidates:
    """What may be selected, in its order, with the given words alone leading any."""
    if isinstance(units, WholeWords):
        found = np.flatnonzero(looked_at)
        found = found[np.lexsort((times[found], scopes[found]))]
        return Candidates(found, found)
    return _covered(times, reach, _placed(times, reach, looked_at, apart=isinstance(units, NGrams)), scopes)


def _taken_of(
    some: Candidates, words: Words, scopes: Int[np.ndarray, " words"], wanted: Int[np.ndarray, " scopes"]
) -> Candidates:
    taken = take(words.sizes[some.words], scopes[some.words], some.leaders, wanted)
    return Candidates(some.words[taken], some.leaders[taken])


def take(
    sizes: Int[np.ndarray, " candidates"],
    scopes: Int[np.ndarray, " candidates"],
    leaders: Int[np.ndarray, " candidates"],
    wanted: Int[np.ndarray, " scopes"],
) -> Int[np.ndarray, " taken"]:
    """Which candidates are taken, in their order and scope by scope, so that their sizes come to no more than is wanted.

    One that is too large for the room that is left is passed over, and with it those of the same leader behind it.
    """
    room, left, taken = wanted.copy(), np.arange(len(sizes)), []
    broken = np.full(leaders.max(initial=-1) + 1, len(sizes))  # the first candidate of each leader that was passed over
    while len(left):
        large = sizes[left] > room[scopes[left]]
        np.minimum.at(broken, leaders[left[large]], left[large])
        left = left[left < broken[leaders[left]]]
        through = np.cumsum(sizes[left])
        held = np.bincount(scopes[left], minlength=len(wanted))
        before = np.concatenate([[0], through])[np.cumsum(held) - held]
        fits = through - np.repeat(before, held) <= room[scopes[left]]
        chosen = left[fits]
        taken.append(chosen)
        room -= np.bincount(scopes[chosen], weights=sizes[chosen], minlength=len(wanted)).astype(room.dtype)
        left = left[~fits]
    return np.concatenate(taken) if taken else left


def drawn_lengths(chances: Float64[np.ndarray, " longest"], bits: UInt64[np.ndarray, " items"]) -> Int[np.ndarray, " items"]:
    """Lengths from 1 on, by their chances."""
    return np.searchsorted(np.cumsum(chances)[:-1], uniform(bits), side="right") + 1


def _placed(
    times: Float64[np.ndarray, " words"], reach: Int[np.ndarray, " words"], looked_at: Bool[np.ndarray, " words"], apart: bool
) -> Bool[np.ndarray, " words"]:
    """The words at which spans of `reach` words are placed, in the order of times, where none is placed that meets an earlier.

    Args:
        looked_at: the words at which one may be placed.
        apart: whether no two may have a word in common; else none may begin within an earlier one.
    """
    # two have a word in common if and only if the right one begins within the left one
    places = np.flatnonzero(looked_at)
    firsts = np.repeat(places, reach[places] - 1)
    inside = firsts + _stretches(np.ones_like(places), reach[places] - 1)
    meet = looked_at[inside]
    firsts, inside = firsts[meet], inside[meet]
    # with ties, which 53 bits hardly have, the left one is the earlier
    left_first = times[firsts] <= times[inside]
    if apart:
        early, late = np.where(left_first, firsts, inside), np.where(left_first, inside, firsts)
    else:
        early, late = firsts[left_first], inside[left_first]
    undecided, placed = looked_at.copy(), np.zeros(len(times), dtype=bool)
    while True:
        free = undecided.copy()
        free[late] = False
        placed |= free
        undecided &= ~free
        undecided[late[free[early]]] = False
        if not undecided.any():
            return placed
        open_still = undecided[early] & undecided[late]
        early, late = early[open_still], late[open_still]


def _stretches(firsts: Int[np.ndarray, " stretches"], counts: Int[np.ndarray, " stretches"]) -> Int[np.ndarray, " all"]:
    """firsts[0], firsts[0] + 1, ... so many as counts[0], then the next."""
    begins = np.cumsum(counts) - counts
    return np.repeat(firsts - begins, counts) + np.arange(int(counts.sum()))


def _covered(
    times: Float64[np.ndarray, " words"],
    reach: Int[np.ndarray, " words"],
    placed: Bool[np.ndarray, " words"],
    scopes: Int[np.ndarray, " words"],
) -> Candidates:
    """The words of spans, in the order of the spans' times; a word of two is of the earlier."""
    firsts = np.flatnonzero(placed)
    firsts = firsts[np.argsort(-times[firsts], kind="stable")]
    leaders = np.full(len(times), -1)
    leaders[_stretches(firsts, reach[firsts])] = np.repeat(firsts, reach[firsts])  # the earliest is written last
    words = np.flatnonzero(leaders >= 0)
    leaders = leaders[words]
    order = np.lexsort((words, times[leaders], scopes[words]))
    return Candidates(words[order], leaders[order])


def _windowed(units: Windows, words: Words, owners: UInt64[np.ndarray, " sequences"], rate: float) -> Candidates:
    held = np.bincount(words.sequences, minlength=len(owners))
    each = max(int(1 / rate), 1) if rate else 1
    windows = -(-held // each)  # at most so many
    of = np.repeat(np.arange(len(held)), windows)
    number = _stretches(np.zeros_like(windows), windows)
    counts = drawn_lengths(units.chances, draw(owners[of], -1 - 2 * number))
    bits = draw(owners[of], -2 - 2 * number)
    sizes = counts * each
    steps = np.maximum(sizes, _below(bits, sizes) + counts)  # an n-gram may reach beyond its window
    through = np.concatenate([[0], np.cumsum(steps)])
    offsets = through[:-1] - np.repeat(through[np.cumsum(windows) - windows], windows)
    kept = offsets < held[of]
    of, counts, offsets = of[kept], counts[kept], offsets[kept]
    begins = offsets + _below(bits[kept], np.minimum(sizes[kept], held[of] - offsets))
    counts = np.minimum(counts, held[of] - begins)
    firsts = (np.cumsum(held) - held)[of] + begins
    return Candidates(_stretches(firsts, counts), np.repeat(firsts, counts))


def _below(bits: UInt64[np.ndarray, " items"], limits: Int[np.ndarray, " items"]) -> Int[np.ndarray, " items"]:
    """As `below`, with a limit for each."""
    return np.minimum((uniform(bits) * limits).astype(np.int64), limits - 1)
