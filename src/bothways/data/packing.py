"""Which samples go into which batch: planned from lengths alone, before anything is read.

An epoch is an order of samples (`data/order.py`: a permutation; `data/mixture.py`), cut into windows that
hold a fixed number of batches. Each window is packed on its own: dealt, longest first, to the emptiest of
the fewest batches that can hold it. All batches of a window then have about the same tokens, the same
number of samples and the same mixture of lengths. (Best-fit decreasing needs as many batches, but sorts:
its first ones hold only long texts, its last only short.) A batch is a function of (seed, epoch, its
number) and the lengths.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import pydantic
from jaxtyping import Int

from bothways.config import config, to_json
from bothways.data.order import Drawn, Order, Shuffled, generator
from bothways.errors import InputError
from bothways.ragged import Capacity

Positive = Annotated[int, pydantic.Field(gt=0)]

# A window is cut at this share of its batches' room: the rest is what dealing needs to come out even
_ROOM_USED = 0.998


@config
class TokenBudget:
    """Batches of at most `tokens` tokens and, where given, `slots` samples; `window` batches are planned together."""

    type: Literal["tokens"] = "tokens"
    tokens: Positive
    slots: Positive | None = None
    window: Positive = 256


@config
class SampleCount:
    """Batches of at most `samples` samples, all of one size to within one sample."""

    type: Literal["samples"] = "samples"
    samples: Positive


Batching = Annotated[TokenBudget | SampleCount, pydantic.Field(discriminator="type")]


@dataclass(frozen=True)
class Fill:
    """How full the batches of an epoch are.

    Attributes:
        share: tokens over the tokens the batches have room for; 1.0 where only samples are counted.
    """

    batches: int
    samples: int
    tokens: int
    share: float


@dataclass(frozen=True, eq=False)
class Plan:
    """The batches of every epoch, as arrays of sample numbers, each batch longest sample first.

    Attributes:
        order: which samples make up an epoch, one after the other; None: all of them, shuffled.

    Raises:
        InputError: no samples, or a sample longer than the token budget.
    """

    lengths: Int[np.ndarray, " samples"]
    batching: TokenBudget | SampleCount
    seed: int
    order: Order | None = None

    def __post_init__(self) -> None:
        if len(self.lengths) == 0:
            raise InputError("the data set has no samples: nothing to batch")
        longest = int(np.argmax(self.lengths))
        if isinstance(self.batching, TokenBudget) and self.lengths[longest] > self.batching.tokens:
            raise InputError(
                f"sample {longest} has {self.lengths[longest]} tokens, a batch at most {self.batching.tokens}: "
                "raise the tokens of a batch, or lower the maximum length of a sample"
            )

    @property
    def fingerprint(self) -> int:
        """A checksum of all that decides the batches: equal plans have equal ones."""
        start = f"{to_json(self.batching)}{self.seed}".encode()
        return self._order.fingerprint(zlib.crc32(self.lengths.astype(np.int64).tobytes(), zlib.crc32(start)))

    def epoch(self, number: int) -> Epoch:
        """The batches of an epoch: each sample once, unless the order says otherwise."""
        return Epoch(self.lengths, self.batching, self._order.draw(self.seed, number), shuffle=(self.seed, number))

    def tokens_before(self, epoch: int) -> int:
        """The tokens of the stream before an epoch, to within a sample of each source."""
        return self._order.tokens_before(epoch)

    def in_order(self) -> Epoch:
        """The batches of the first epoch without any shuffling, for evaluation."""
        return Epoch(self.lengths, self.batching, self._order.draw(None, 0), shuffle=None)

    @cached_property
    def _order(self) -> Order:
        return self.order or Shuffled(self.lengths)


@dataclass(frozen=True, eq=False)
class Epoch:
    """One epoch; iterating gives its batches, window after window.

    Attributes:
        drawn: the samples in the order they are taken.
        shuffle: the (seed, epoch) that orders the batches of a window; None leaves them as dealt.
    """

    lengths: Int[np.ndarray, " samples"]
    batching: TokenBudget | SampleCount
    drawn: Drawn
    shuffle: tuple[int, int] | None

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(self.windows):
            yield from self.window(number)

    @property
    def windows(self) -> int:
        return len(self._cuts) - 1

    def window(self, number: int) -> list[np.ndarray]:
        """The sample numbers of one window's batches, in the order they are used."""
        return [self.drawn.samples[places] for places in self._places(number)]

    def draws(self, number: int) -> list[Drawn]:
        """As `window`, with the pass of each sample."""
        return [self.drawn.at(places) for places in self._places(number)]

    def before(self, number: int) -> Int[np.ndarray, " samples"]:
        """The sample numbers of all windows before one, in the order they are drawn in."""
        return self.drawn.samples[: self._cuts[number]]

    def tokens_before(self, window: int, batch: int) -> int:
        """The tokens of this epoch before a batch of a window."""
        begun = self.window(window)[:batch] if batch else []
        return sum(int(self.lengths[numbers].sum(dtype=np.int64)) for numbers in (self.before(window), *begun))

    @property
    def fill(self) -> Fill:
        """How full the batches are."""
        batches = sum(1 for _ in self)
        tokens = int(self.lengths[self.drawn.samples].sum())
        room = batches * self.batching.tokens if isinstance(self.batching, TokenBudget) else tokens
        return Fill(batches, len(self.drawn), tokens, tokens / room)

    def _places(self, number: int) -> list[np.ndarray]:
        """Where in `drawn` the samples of one window's batches stand."""
        begin, end = self._cuts[number : number + 2]
        lengths = self.lengths[self.drawn.samples[begin:end]]
        if isinstance(self.batching, SampleCount):
            parts = np.array_split(np.arange(begin, end), -(-(end - begin) // self.batching.samples))
            return [part[np.argsort(-lengths[part - begin], kind="stable")] for part in parts]
        batches = [begin + batch for batch in pack(lengths, self.batching.tokens, self.batching.slots)]
        if self.shuffle is None:
            return batches
        return [batches[i] for i in generator(*self.shuffle, number).permutation(len(batches))]

    @cached_property
    def _cuts(self) -> list[int]:
        """Where each window begins in `drawn`, then the end of the last."""
        cuts, end = [0], len(self.drawn)
        if isinstance(self.batching, SampleCount):
            return [0, end]
        through = np.cumsum(self.lengths[self.drawn.samples], dtype=np.int64)
        most = end if self.batching.slots is None else self.batching.slots * self.batching.window
        # a whole number: searching whole numbers for a fraction would turn all of them into fractions, every time
        room = max(int(self.batching.window * self.batching.tokens * _ROOM_USED), self.batching.tokens)
        while cuts[-1] < end:
            before = int(through[cuts[-1] - 1]) if cuts[-1] else 0
            cuts.append(min(int(np.searchsorted(through, before + room, side="right")), cuts[-1] + most))
        return cuts


def capacity(lengths: Int[np.ndarray, " samples"], batching: TokenBudget | SampleCount) -> Capacity:
    """What every batch of such samples, of one sequence each, can be brought to by filler.

    Raises:
        InputError: batches that are no budget of tokens: each has as many tokens as it happens to have.
    """
    if not isinstance(batching, TokenBudget):
        raise InputError("batches of a number of samples have no fixed shape; give a budget of tokens (TokenBudget)")
    longest, shortest = int(lengths.max()), max(int(lengths.min()), 1)
    slots = batching.tokens // shortest + 1  # no batch has more, those of its filler among them
    if batching.slots is not None:
        slots = min(slots, batching.slots + -(-batching.tokens // longest))
    return Capacity(batching.tokens, slots, longest)


def pack(lengths: Int[np.ndarray, " samples"], tokens: int, slots: int | None = None) -> list[np.ndarray]:
    """Deal samples, none longer than `tokens`, evenly into as few batches as hold them; each batch longest first.

    Returns:
        for each batch the indices into `lengths` of its samples; every index once.
    """
    order = np.argsort(-lengths, kind="stable")
    least = max(-(-int(lengths.sum()) // tokens), -(-len(lengths) // (slots or len(lengths))), 1)
    batches = _deal(order, lengths, tokens, slots, least)
    if len(batches) > least:
        # batches opened on the way are nearly empty: deal again, with all of them open from the start
        again = _deal(order, lengths, tokens, slots, len(batches))
        batches = again if len(again) == len(batches) else batches
    return [np.array(batch, dtype=np.int64) for batch in batches]


def _deal(order: np.ndarray, lengths: np.ndarray, tokens: int, slots: int | None, count: int) -> list[list[int]]:
    """Each sample in turn to the emptiest of `count` batches; another is opened where none has room."""
    batches: list[list[int]] = [[] for _ in range(count)]
    emptiest = [(0, number) for number in range(count)]
    for sample, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if not emptiest or emptiest[0][0] + length > tokens:
            heapq.heappush(emptiest, (0, len(batches)))
            batches.append([])
        filled, number = emptiest[0]
        batches[number].append(sample)
        if len(batches[number]) == slots:
            heapq.heappop(emptiest)
        else:
            heapq.heapreplace(emptiest, (filled + length, number))
    return batches
