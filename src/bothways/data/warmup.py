"""Short samples first: limits of length that grow as a run goes on, over the same order of the same text.

The text is cut into samples of the final length once. While a lower limit holds, each of them comes as several
shorter ones, one after the other; so every pass still takes each token once, wherever the limits change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Annotated

import numpy as np
import pydantic
from jaxtyping import Int

from bothways.config import config
from bothways.data.order import Drawn, Order, checksum
from bothways.data.sample import Sample, Samples
from bothways.data.token_data import cut
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError


@config
class LengthStage:
    """A limit of tokens for each sample, special tokens included, and for how many tokens of text it holds."""

    max_length: pydantic.PositiveInt
    tokens: pydantic.PositiveInt


@config
class LengthWarmup:
    """Stages before the run's own `max_length`, each with a higher limit than the one before it.

    A stage's tokens are counted as samples of the final length have them: shorter ones have more special tokens,
    so a stage takes a few more (3 % at a limit of 64).
    """

    stages: Annotated[tuple[LengthStage, ...], pydantic.Field(min_length=1)]

    @pydantic.model_validator(mode="after")
    def _check(self) -> LengthWarmup:
        for before, after in pairwise(self.stages):
            if before.max_length >= after.max_length:
                raise ValueError(f"length warm-up: {after.max_length} after {before.max_length}; limits must grow")
        return self


class Shortened:
    """The samples of a data set, and behind them the same text again in samples of each lower limit.

    Attributes:
        lengths: int32 [samples], of all of them.
    """

    def __init__(self, data: Samples, tokenizer: Tokenizer, limits: Sequence[int]) -> None:
        """Raises InputError for a limit without room for text."""
        self._data, self._tokenizer = data, tokenizer
        self._rooms = [limit - tokenizer.specials_per_sequence for limit in limits]
        for limit, room in zip(limits, self._rooms, strict=True):
            if room < 1:
                raise InputError(
                    f"length warm-up: a limit of {limit} leaves no room beside {tokenizer.specials_per_sequence} special tokens"
                )
        cuts = [cut(np.asarray(data.lengths) - tokenizer.specials_per_sequence, room) for room in self._rooms]
        self._ends = [ends for ends, _ in cuts]
        self._starts = list(accumulate((int(ends[-1]) for ends in self._ends), initial=len(data)))
        shorter = [(lengths + tokenizer.specials_per_sequence).astype(np.int32) for _, lengths in cuts]
        self.lengths = np.concatenate([data.lengths, *shorter])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Sample:
        if number < len(self._data):
            return self._data[number]
        limit = int(np.searchsorted(self._starts, number, side="right")) - 1
        unit, piece = (int(array[0]) for array in self._unit(limit, np.array([number])))
        before = len(self._tokenizer.template.before)
        start = before + piece * self._rooms[limit]
        tokens = int(self.lengths[number]) - self._tokenizer.specials_per_sequence
        ids = self._data[unit].sequences[0][start : start + tokens]
        return Sample(number, (self._tokenizer.wrap(ids),))

    def whole(self, numbers: Int[np.ndarray, " samples"]) -> Int[np.ndarray, " samples"]:
        """The sample of the final length that each sample is of."""
        found = numbers.copy()
        for limit, (begin, end) in enumerate(pairwise(self._starts)):
            here = (numbers >= begin) & (numbers < end)
            found[here] = self._unit(limit, numbers[here])[0]
        return found

    def pieces(self, limit: int, units: Int[np.ndarray, " units"]) -> tuple[np.ndarray, np.ndarray]:
        """The first sample of each unit under one of the limits, and how many there are of it."""
        ends = self._ends[limit]
        begin = np.where(units > 0, ends[units - 1], 0)
        return self._starts[limit] + begin, ends[units] - begin

    def _unit(self, limit: int, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The unit each sample of a limit is a piece of, and which piece."""
        ends, places = self._ends[limit], numbers - self._starts[limit]
        units = np.searchsorted(ends, places, side="right")
        return units, places - np.where(units > 0, ends[units - 1], 0)


@dataclass(frozen=True, eq=False)
class Growing:
    """The order of the final samples, each taken in pieces as long as a lower limit holds; without a seed, whole.

    Attributes:
        order: of the samples of the final length.
        until: how many tokens come before the end of each limit.
    """

    order: Order
    data: Shortened
    final: Int[np.ndarray, " units"]
    until: tuple[int, ...]

    def draw(self, seed: int | None, epoch: int) -> Drawn:
        drawn = self.order.draw(seed, epoch)
        begin = self.order.tokens_before(epoch)
        if seed is None or begin >= self.until[-1]:
            return drawn
        lengths = self.final[drawn.samples].astype(np.int64)
        stages = np.searchsorted(self.until, begin + np.cumsum(lengths) - lengths, side="right")
        first, count = drawn.samples.copy(), np.ones(len(drawn), np.int64)
        for limit in range(len(self.until)):
            here = stages == limit
            first[here], count[here] = self.data.pieces(limit, drawn.samples[here])
        taken = np.repeat(np.arange(len(drawn)), count)
        piece = np.arange(len(taken)) - np.repeat(np.cumsum(count) - count, count)
        return Drawn(first[taken] + piece, drawn.at(taken).epochs)

    def tokens_before(self, epoch: int) -> int:
        return self.order.tokens_before(epoch)

    def fingerprint(self, start: int) -> int:
        return checksum(f"until {self.until}", self.order.fingerprint(start))


def growing(warmup: LengthWarmup, order: Order, data: Samples, tokenizer: Tokenizer) -> tuple[Shortened, Growing]:
    """A data set and its order, with a length warm-up before its samples' own length."""
    shortened = Shortened(data, tokenizer, [stage.max_length for stage in warmup.stages])
    until = tuple(accumulate(stage.tokens for stage in warmup.stages))
    return shortened, Growing(order, shortened, np.asarray(data.lengths), until)
