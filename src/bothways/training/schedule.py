"""Budgets, and the learning rate's factor as a pure function of how much of a budget is spent.

A factor is taken from what was done *before* a step, as in the original BERT code: with warm-up the
first step has a learning rate of 0. Hours have no factor: the loop turns them into tokens first.
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


Budget: TypeAlias = Annotated[Steps | Tokens | Hours, Field(discriminator="type")]


@config
class Fraction:
    """A part of the budget."""

    type: Literal["fraction"] = "fraction"
    of: Share


@config
class Count:
    """A number of the budget's units: steps of `Steps`; tokens of `Tokens` and `Hours`."""

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


Schedule: TypeAlias = Annotated[Linear | Cosine | Trapezoidal, Field(discriminator="type")]


def spent(budget: Steps | Tokens, step: int, tokens: int) -> int:
    """What counts towards the budget, in its units."""
    return step if isinstance(budget, Steps) else tokens


def check(schedule: Linear | Cosine | Trapezoidal, total: int) -> None:
    """Refuse a schedule that does not fit its budget.

    Raises:
        InputError: warm-up (and decay) longer than the budget.
    """
    decay = units(schedule.decay, total) if isinstance(schedule, Trapezoidal) else 0
    warmup = units(schedule.warmup, total)
    if warmup + decay > total * (1 + 1e-9):
        raise InputError(f"schedule: warm-up {warmup:,.0f} and decay {decay:,.0f} exceed the budget of {total:,}; shorten them")


def factor(schedule: Linear | Cosine | Trapezoidal, done: int, total: int) -> float:
    """The learning rate's factor, 0 to 1, after `done` of `total` units."""
    warmup = units(schedule.warmup, total)
    if done < warmup:
        return done / warmup
    return schedule.final + (1 - schedule.final) * _fall(schedule, min(done, total), warmup, total)


def units(span: Fraction | Count, total: int) -> float:
    """A part of the budget in its units."""
    return span.of * total if isinstance(span, Fraction) else float(span.count)


def _fall(schedule: Linear | Cosine | Trapezoidal, done: int, warmup: float, total: int) -> float:
    """From 1 at the end of warm-up to 0 at the end of the budget."""
    if isinstance(schedule, Trapezoidal):
        decay = units(schedule.decay, total)
        begin = total - decay
        return 1 - math.sqrt((done - begin) / decay) if done > begin else 1.0
    left = (total - done) / (total - warmup) if total > warmup else 1.0
    return left if isinstance(schedule, Linear) else 0.5 * (1 - math.cos(math.pi * left))
