"""Several sources as one data set, in declared shares of the tokens.

Shares are of tokens, as papers state them (NeoBERT's 20/40/40, arXiv 2502.19587); where all samples are equally
long they are shares of the samples too. The rule is that of fair queueing: each source lays its passes end to end
on a line, stretched by one over its share, and samples are taken in the order of their middles on that line. So
any stretch of the sequence has the declared shares to within a sample of each source, every source goes through
its samples one pass after the other, and the order follows from the seed and the lengths alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import ceil, floor
from typing import Annotated, Literal, TypeAlias

import numpy as np
import pydantic
from jaxtyping import Int

from bothways.config import config
from bothways.data.order import Drawn, checksum, permutation
from bothways.data.packing import SampleCount, TokenBudget
from bothways.data.sample import Sample, Samples
from bothways.data.source import Column, TextFiles
from bothways.errors import InputError

# A round's last window may end in a batch that is not full: rounds of so many windows keep that below a batch in 16,000
_WINDOWS = 64


@config
class TokenFolder:
    """Tokenised text: a folder of `bothways tokenize`, or its documents of `at_least` to `at_most` tokens."""

    type: Literal["tokens"] = "tokens"
    folder: str
    at_least: pydantic.NonNegativeInt = 0
    at_most: pydantic.PositiveInt | None = None


@config
class Part:
    """One source of a mixture, and the share of the tokens that come from it: its weight over the sum of all weights."""

    name: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    weight: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
    source: Annotated[TextFiles | Column | TokenFolder, pydantic.Field(discriminator="type")]


@config
class Mixture:
    """Sources in shares of the tokens; each is gone through again when it is used up, whatever the others do."""

    type: Literal["mixture"] = "mixture"
    parts: Annotated[tuple[Part, ...], pydantic.Field(min_length=1)]

    @pydantic.model_validator(mode="after")
    def _check(self) -> Mixture:
        names = [part.name for part in self.parts]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two parts of the mixture are called '{twice[0]}'; a name is that of one part")
        return self


Corpus: TypeAlias = Annotated[TextFiles | Column | TokenFolder | Mixture, pydantic.Field(discriminator="type")]
"""What a run learns from."""


class Joined:
    """Data sets as one: the samples of the first, then those of the second ..."""

    def __init__(self, parts: Sequence[Samples]) -> None:
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self.lengths = np.concatenate([part.lengths for part in parts])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Sample:
        place = int(np.searchsorted(self._ends, number, side="right"))
        begin = int(self._ends[place - 1]) if place else 0
        return replace(self._parts[place][number - begin], id=number)

    def sources(self, numbers: Int[np.ndarray, " samples"]) -> Int[np.ndarray, " samples"]:
        """Which of the data sets each sample is of."""
        return np.searchsorted(self._ends, numbers, side="right")


@dataclass(frozen=True, eq=False)
class Mixed:
    """The order of a mixture's samples, numbered as `Joined` does.

    An epoch is a round: the tokens in which the source that is soonest used up has been gone through (several times, in
    a round of `least` tokens). With one source it is a pass over it, in the order that it has without a mixture.

    Attributes:
        lengths: int [samples] for each source.
        weights: of each source; their sum is the whole.
        least: about how many tokens a round has at least, where the sources have as many.
    """

    lengths: tuple[np.ndarray, ...]
    weights: tuple[float, ...]
    least: int = 0

    def __post_init__(self) -> None:
        assert len(self.lengths) == len(self.weights)
        for number, lengths in enumerate(self.lengths):
            if not len(lengths):
                raise InputError(f"source {number + 1} of the mixture has no samples")

    def draw(self, seed: int | None, epoch: int) -> Drawn:
        drawn = [self._of(source, seed, epoch) for source in range(len(self.lengths))]
        samples, epochs, middles = (np.concatenate(columns) for columns in zip(*drawn, strict=True))
        order = np.argsort(middles, kind="stable")
        return Drawn(samples[order], epochs[order])

    def tokens_before(self, epoch: int) -> int:
        return floor(epoch * self._round)

    def fingerprint(self, start: int) -> int:
        if len(self.lengths) == 1:
            return start  # as without a mixture
        return checksum(str(([len(lengths) for lengths in self.lengths], self.weights, self._round)), start)

    def _of(self, source: int, seed: int | None, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What a source gives to a round: numbers, passes, and middles on the common line."""
        lengths, share, tokens = self.lengths[source], self._shares[source], self._tokens[source]
        # Twice the tokens, so that middles are whole numbers: exact, and every sample is in one round
        begin, end = (ceil(2 * number * self._round * share) for number in (epoch, epoch + 1))
        samples, epochs, middles = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for number in range(begin // (2 * tokens), (end - 1) // (2 * tokens) + 1):
            # The first source's path is that of a lone source; no path has as many parts as that of a window's batches
            order = permutation(seed, len(lengths), *((number,) if source == 0 else (number, source, 0)))
            taken = lengths[order].astype(np.int64)
            middle = 2 * (np.cumsum(taken) + number * tokens) - taken
            first, last = np.searchsorted(middle, (begin, end))
            samples.append(self._starts[source] + order[first:last])
            epochs.append(np.full(last - first, number))
            middles.append(middle[first:last])
        return np.concatenate(samples), np.concatenate(epochs), np.concatenate(middles) / float(share)

    @cached_property
    def _tokens(self) -> list[int]:
        return [int(lengths.sum(dtype=np.int64)) for lengths in self.lengths]

    @cached_property
    def _starts(self) -> list[int]:
        return [sum(len(one) for one in self.lengths[:source]) for source in range(len(self.lengths))]

    @cached_property
    def _shares(self) -> list[Fraction]:
        whole = sum(map(Fraction, self.weights))
        return [Fraction(weight) / whole for weight in self.weights]

    @cached_property
    def _round(self) -> Fraction:
        """The tokens of a round."""
        soonest = min(tokens / share for tokens, share in zip(self._tokens, self._shares, strict=True))
        return soonest * max(ceil(min(sum(self._tokens), self.least) / soonest), 1)


def mixed(parts: Sequence[Samples], weights: Sequence[float], batching: TokenBudget | SampleCount) -> Mixed:
    """The order of some data sets mixed by weight, in rounds long enough that their last batches do not matter."""
    least = (
        batching.tokens * batching.window * _WINDOWS
        if isinstance(batching, TokenBudget)
        else sum(int(part.lengths.sum()) for part in parts)
    )
    return Mixed(tuple(np.asarray(part.lengths) for part in parts), tuple(weights), least)
