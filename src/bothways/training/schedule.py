"""Budgets, and the learning rate's factor as a pure function of how much of a budget is spent.

A factor is taken from what was done *before* a step, as in the original BERT code: with warm-up the
first step has a learning rate of 0. Hours have no factor: the loop turns them into tokens first.
`Elapsed` alone is a budget of the clock, so that what is learned depends on the machine and on what else it does.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from bothways.config import config
from bothways.errors import InputError

Share = Annotated[float, Field(ge=0, le=1)]


@config
class Steps:
    """Stop after so many optimizer steps."""

    type: Literal["steps"] = "steps"
    count: Annotated[int, Field(gt=0)]


@config
class Tokens:
    """Stop after the step in which so many tokens have been processed."""

    type: Literal["tokens"] = "tokens"
    count: Annotated[int, Field(gt=0)]


@config
class Hours:
    """As many tokens as this machine processes in so many hours of steps.

    Evaluation and checkpoints come on top. The loop times a few steps, freezes the tokens in
    `run.json`, and from then on only tokens count.
    """

    type: Literal["hours"] = "hours"
    hours: Annotated[float, Field(gt=0)]


@config
class Elapsed:
    """Stop after the step that ends so many hours of steps, with a schedule of the clock (cramming, arXiv 2212.14034).

    Steps alone count, the waiting for their inputs with them; evaluation and checkpoints come on top. A run that goes on adds the
    seconds it has spent. Two such runs are never the same.
    """

    type: Literal["elapsed"] = "elapsed"
    hours: Annotated[float, Field(gt=0)]

    @property
    def count(self) -> float:
        """In seconds."""
        return self.hours * 3600


Budget: TypeAlias = Annotated[Steps | Tokens | Hours | Elapsed, Field(discriminator="type")]
# An amount of a budget's units: whole steps and tokens, parts of seconds.
Amount: TypeAlias = int | float


@config
class Fraction:
    """A part of the budget."""

    type: Literal["fraction"] = "fraction"
    of: Share


@config
class Count:
    """A number of the budget's units: steps of `Steps`; tokens of `Tokens` and `Hours`; seconds of `Elapsed`."""

    type: Literal["count"] = "count"
    count: Annotated[int, Field(ge=0)]


Span: TypeAlias = Annotated[Fraction | Count, Field(discriminator="type")]


@config
class Linear:
    """Warm-up, then a straight line to `final`."""

    type: Literal["linear"] = "linear"
    warmup: Span = Fraction(of=0.06)
    final: Share = 0.0


@config
class Cosine:
    """Warm-up, then half a cosine to `final`."""

    type: Literal["cosine"] = "cosine"
    warmup: Span = Fraction(of=0.06)
    final: Share = 0.0


@config
class Trapezoidal:
    """Warm-up, a constant, then `final + (1 - final) * (1 - sqrt(t))` (ModernBERT, arXiv 2412.13663)."""

    type: Literal["trapezoidal"] = "trapezoidal"
    warmup: Span = Fraction(of=0.06)
    decay: Span = Fraction(of=0.2)
    final: Share = 0.001


@config
class Triangle:
    """A straight line from `start` up to 1 at `peak`, and one down to `final` at the end.

    The defaults are one cycle; cramming's (arXiv 2212.14034) peaks at 0.75 and starts at 0.5 or 0.25.
    """

    type: Literal["triangle"] = "triangle"
    peak: Span = Fraction(of=0.5)
    start: Share = 0.0
    final: Share = 0.0


Schedule: TypeAlias = Annotated[Linear | Cosine | Trapezoidal | Triangle, Field(discriminator="type")]


def spent(budget: Steps | Tokens | Elapsed, step: int, tokens: int, seconds: float) -> Amount:
    """What counts towards the budget, in its units."""
    match budget:
        case Steps():
            return step
        case Tokens():
            return tokens
        case Elapsed():
            return seconds


def check(schedule: Linear | Cosine | Trapezoidal | Triangle, total: Amount) -> None:
    """Refuse a schedule that does not fit its budget.

    Raises:
        InputError: warm-up (and decay) longer than the budget.
    """
    decay = units(schedule.decay, total) if isinstance(schedule, Trapezoidal) else 0
    rise = _rise(schedule, total)
    if rise + decay > total * (1 + 1e-9):
        raise InputError(f"schedule: warm-up {rise:,.0f} and decay {decay:,.0f} exceed the budget of {total:,}; shorten them")


def factor(schedule: Linear | Cosine | Trapezoidal | Triangle, done: Amount, total: Amount) -> float:
    """The learning rate's factor, 0 to 1, after `done` of `total` units."""
    rise = _rise(schedule, total)
    if done < rise:
        start = schedule.start if isinstance(schedule, Triangle) else 0.0
        return start + (1 - start) * (done / rise)
    return schedule.final + (1 - schedule.final) * _fall(schedule, min(done, total), rise, total)


def units(span: Fraction | Count, total: Amount) -> float:
    """A part of the budget in its units."""
    return span.of * total if isinstance(span, Fraction) else float(span.count)


def _rise(schedule: Linear | Cosine | Trapezoidal | Triangle, total: Amount) -> float:
    """Where the factor is first 1."""
    return units(schedule.peak if isinstance(schedule, Triangle) else schedule.warmup, total)


def _fall(schedule: Linear | Cosine | Trapezoidal | Triangle, done: Amount, rise: float, total: Amount) -> float:
    """From 1 at the end of warm-up to 0 at the end of the budget."""
    if isinstance(schedule, Trapezoidal):
        decay = units(schedule.decay, total)
        begin = total - decay
        return 1 - math.sqrt((done - begin) / decay) if done > begin else 1.0
    left = (total - done) / (total - rise) if total > rise else 1.0
    return 0.5 * (1 - math.cos(math.pi * left)) if isinstance(schedule, Cosine) else left
