"""Smaller batches at first: how many micro-batches a step has, as a pure function of where the run stands."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from bothways.config import config
from bothways.training.schedule import Amount, Fraction, Span, units

Positive = Annotated[int, Field(gt=0)]


@config
class EqualUpdates:
    """Every size, from `first` up by `increment`, lasts equally many updates (ModernBERT, arXiv 2412.13663).

    So the larger sizes take more tokens. `updates_within` says how many updates fit in a number of tokens.

    Attributes:
        first: micro-batches of the first step.
        updates: of each size before the full one.
    """

    type: Literal["equal_updates"] = "equal_updates"
    first: Positive = 1
    increment: Positive = 1
    updates: Positive


@config
class Linearly:
    """The size grows in a straight line with the budget spent, and is full at `until` (cramming, arXiv 2212.14034)."""

    type: Literal["linearly"] = "linearly"
    first: Positive = 1
    until: Span = Fraction(of=0.6)


Ramp: TypeAlias = Annotated[EqualUpdates | Linearly, Field(discriminator="type")]


def micro_batches(ramp: EqualUpdates | Linearly | None, full: int, step: int, done: Amount, total: Amount) -> int:
    """How many micro-batches the step numbered `step` has, from 0, when `done` of `total` units of the budget are spent."""
    match ramp:
        case None:
            return full
        case EqualUpdates():
            return min(ramp.first + step // ramp.updates * ramp.increment, full)
        case Linearly():
            until = units(ramp.until, total)
            return full if done >= until else ramp.first + int((full - ramp.first) * done / until)


def updates_within(tokens: int, micro_batch: int, first: int, full: int, increment: int = 1) -> int:
    """The updates of each size with which `EqualUpdates` reaches `full` after about so many tokens; at least 1.

    Args:
        micro_batch: tokens of a micro-batch.
    """
    return max(round(tokens / (micro_batch * sum(range(first, full, increment)))), 1)
