"""What a stream has taken of each source: the realised mixture, and how often each source was gone through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from bothways.data.packing import Plan
from bothways.data.sample import Samples


@dataclass(frozen=True)
class Tally:
    """One source, up to some point of a run.

    Attributes:
        declared: its share of the tokens by the mixture's weights.
        share: its share of the tokens that were taken.
        passes: how often its text was gone through: over 1, some of it was seen more than once.
    """

    name: str
    declared: float
    samples: int
    tokens: int
    share: float
    passes: float


def tally(
    plan: Plan,
    state: dict[str, int],
    sources: Callable[[Int[np.ndarray, " samples"]], Int[np.ndarray, " samples"]],
    names: Sequence[str],
    weights: Sequence[float],
    parts: Sequence[Samples],
    specials: int,
) -> list[Tally]:
    """Count what the batches before a state of a plan's stream hold.

    Args:
        sources: the number of each sample's source.
        parts: the data set of each source.
        specials: special tokens of each sample, which are no text.
    """
    samples, tokens = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    for numbers in _before(plan, state):
        owners = sources(numbers)
        samples += np.bincount(owners, minlength=len(names))
        tokens += np.bincount(owners, weights=plan.lengths[numbers], minlength=len(names)).astype(np.int64)
    texts = [int(part.lengths.sum(dtype=np.int64)) - specials * len(part) for part in parts]
    whole, taken = sum(weights), max(int(tokens.sum()), 1)
    return [
        Tally(name, weight / whole, count, some, some / taken, (some - specials * count) / text)
        for name, weight, count, some, text in zip(names, weights, samples.tolist(), tokens.tolist(), texts, strict=True)
    ]


def _before(plan: Plan, state: dict[str, int]) -> Iterator[Int[np.ndarray, " samples"]]:
    for number in range(state["epoch"]):
        yield plan.epoch(number).drawn.samples
    epoch = plan.epoch(state["epoch"])
    yield epoch.before(state["window"])
    if state["batch"]:
        yield from epoch.window(state["window"])[: state["batch"]]
