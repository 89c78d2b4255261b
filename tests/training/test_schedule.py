"""Schedules and budgets against values worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from bothways.config import from_json, to_json
from bothways.errors import InputError
from bothways.training.schedule import (
    Budget,
    Cosine,
    Count,
    Elapsed,
    Fraction,
    Hours,
    Linear,
    Schedule,
    Steps,
    Tokens,
    Trapezoidal,
    Triangle,
    check,
    factor,
    spent,
)


@pytest.mark.parametrize("warmup", [Fraction(of=0.1), Count(count=100)])
@pytest.mark.parametrize(
    ("done", "expected"), [(0, 0.0), (50, 0.5), (100, 1.0), (325, 0.775), (550, 0.55), (1000, 0.1), (1200, 0.1)]
)
def test_linear(warmup: Fraction | Count, done: int, expected: float) -> None:
    assert factor(Linear(warmup=warmup, final=0.1), done, 1000) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (0, 0.0),
        (100, 1.0),
        (
            325,
            0.8682,
        ),
        (550, 0.55),
        (1000, 0.1),
    ],  # 0.1 + 0.9 * (1 + cos(pi / 4)) / 2 = 0.8682
)
def test_cosine(done: int, expected: float) -> None:
    assert factor(Cosine(warmup=Fraction(of=0.1), final=0.1), done, 1000) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (0, 0.0),
        (50, 0.5),
        (100, 1.0),
        (450, 1.0),
        (600, 1.0),
        (700, 0.5005),
        (800, 0.2936),
        (900, 0.1348),
        (1000, 0.001),
        (1100, 0.001),
    ],
)
def test_trapezoidal(done: int, expected: float) -> None:
    """The decay over the last 400 of 1,000 units, at t = 0.25, 0.5, 0.75 and 1 of it (arXiv 2412.13663)."""
    schedule = Trapezoidal(warmup=Count(count=100), decay=Fraction(of=0.4), final=0.001)
    assert factor(schedule, done, 1000) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Triangle(), [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]),
        (Triangle(peak=Fraction(of=0.75), start=0.25, final=0.0), [0.25, 0.5, 0.75, 1.0, 0.0, 0.0]),
        (Triangle(peak=Count(count=250), final=0.1), [0.0, 1.0, 0.7, 0.4, 0.1, 0.1]),
        (Triangle(peak=Count(count=0), final=0.5), [1.0, 0.875, 0.75, 0.625, 0.5, 0.5]),
    ],
)
def test_triangle(schedule: Triangle, values: list[float]) -> None:
    """One cycle; cramming's, which begins at a quarter and falls over the last quarter of the budget; others."""
    assert [factor(schedule, done, 1000) for done in (0, 250, 500, 750, 1000, 1200)] == pytest.approx(values, abs=1e-12)


def test_no_warmup_and_no_decay() -> None:
    assert factor(Linear(warmup=Count(count=0)), 0, 10) == 1.0
    assert factor(Linear(warmup=Fraction(of=1.0)), 10, 10) == 1.0
    flat = Trapezoidal(warmup=Count(count=0), decay=Count(count=0))
    assert [factor(flat, done, 10) for done in (0, 5, 10)] == [1.0, 1.0, 1.0]


@given(
    schedule=st.sampled_from([Linear, Cosine, Triangle]),
    share=st.floats(0, 1),
    final=st.floats(0, 1),
    total=st.integers(1, 10**12),
    part=st.floats(0, 1.5),
)
def test_a_factor_is_never_outside_0_and_1(
    schedule: type[Linear] | type[Cosine] | type[Triangle], share: float, final: float, total: int, part: float
) -> None:
    rise = Fraction(of=share)
    one = Triangle(peak=rise, start=final, final=final) if schedule is Triangle else schedule(warmup=rise, final=final)  # type: ignore[call-arg]
    assert 0 <= factor(one, int(part * total), total) <= 1 + 1e-12


def test_a_schedule_longer_than_its_budget_is_refused() -> None:
    with pytest.raises(InputError, match="warm-up 600 and decay 500 exceed the budget of 1,000"):
        check(Trapezoidal(warmup=Count(count=600), decay=Fraction(of=0.5)), 1000)
    with pytest.raises(InputError, match="warm-up 11 and"):
        check(Linear(warmup=Count(count=11)), 10)
    check(Trapezoidal(warmup=Fraction(of=0.6), decay=Fraction(of=0.4)), 7)


def test_progress_is_in_the_budgets_units() -> None:
    assert spent(Steps(count=10), step=3, tokens=700, seconds=1.5) == 3
    assert spent(Tokens(count=1000), step=3, tokens=700, seconds=1.5) == 700
    assert spent(Elapsed(hours=2.0), step=3, tokens=700, seconds=1.5) == 1.5
    assert Elapsed(hours=2.0).count == 7200.0


@pytest.mark.parametrize("value", [Hours(hours=0.5), Tokens(count=3), Steps(count=3), Elapsed(hours=0.1)])
def test_budgets_survive_json(value: Steps | Tokens | Hours | Elapsed) -> None:
    assert TypeAdapter(Budget).validate_json(to_json(value)) == value


@pytest.mark.parametrize("value", [Linear(), Cosine(warmup=Count(count=5)), Trapezoidal(decay=Count(count=9)), Triangle()])
def test_schedules_survive_json(value: Linear | Cosine | Trapezoidal | Triangle) -> None:
    assert TypeAdapter(Schedule).validate_json(to_json(value)) == value


@pytest.mark.parametrize("text", ['{"count": 0}', '{"count": 1.5}', '{"count": -1}', '{"cuont": 5}'])
def test_bad_budgets_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="the budget"):
        from_json(Steps, text, "the budget")
