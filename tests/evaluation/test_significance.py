"""Intervals and differences, by hand and against scipy's own tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bothways.errors import InputError
from bothways.evaluation.significance import Interval, bootstrap_shares, paired, paired_bootstrap, summary, welch

SAMPLES = st.lists(st.integers(-100, 100), min_size=2, max_size=12)


def test_summary_by_hand() -> None:
    """1, 2, 3: deviation 1, error 1 / sqrt 3; t of two degrees at 97.5 % is 4.30265."""
    found = summary([1, 2, 3])
    assert (found.count, found.mean, found.std) == (3, 2, 1)
    assert (found.low, found.high) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=1e-5)


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # scipy, of samples without variance
@settings(deadline=None)
@given(first=SAMPLES, second=SAMPLES)
def test_welch_is_scipys(first: list[int], second: list[int]) -> None:
    found = welch(first, second)
    if np.ptp(first) == np.ptp(second) == 0:
        assert found.low == found.mean == found.high
        return
    reference: Any = stats.ttest_ind(first, second, equal_var=False)
    interval = reference.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, reference.pvalue), rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=12))
def test_paired_is_scipys(pairs: list[tuple[int, int]]) -> None:
    first, second = (np.array(column, float) for column in zip(*pairs, strict=True))
    found = paired(first, second)
    if np.ptp(first - second) == 0:
        assert found.p == (1 if found.mean == 0 else 0)
        return
    reference: Any = stats.ttest_rel(first, second)
    interval = reference.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, reference.pvalue), rel=1e-6, abs=1e-9)


def test_pairing_sees_what_separate_samples_hide() -> None:
    seeds = np.array([0.1, 0.5, 0.9, 0.3])
    better = seeds + np.array([0.010, 0.011, 0.009, 0.010])
    assert paired(better, seeds).low > 0
    assert welch(better, seeds).low < 0 < welch(better, seeds).high


def test_bootstrap_of_a_constant_gap() -> None:
    found = paired_bootstrap([2.0, 3.0, 4.0], [1.0, 2.0, 3.0], samples=999)
    assert (found.mean, found.low, found.high, found.p) == (1, 1, 1, 2 / 1000)


def test_bootstrap_of_two_queries() -> None:
    """Gaps 0 and 1: a resample's mean is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4. So p is twice 1/4."""
    found = paired_bootstrap([0.0, 1.0], [0.0, 0.0])
    assert (found.mean, found.low, found.high) == (0.5, 0, 1)
    assert abs(found.p - 0.5) < 4 * 2 * (3 / 16 / 10_000) ** 0.5


def test_bootstrap_agrees_with_t_on_many_queries_and_is_a_function_of_its_seed() -> None:
    random = np.random.default_rng(3)
    first, second = random.normal(0.52, 0.3, 2000), random.normal(0.5, 0.3, 2000)
    found, reference = paired_bootstrap(first, second), paired(first, second)
    half = (reference.high - reference.low) / 2
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.05 * half)
    assert found == paired_bootstrap(first, second)
    assert found != paired_bootstrap(first, second, seed=1)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_too_little(values: list[float]) -> None:
    with pytest.raises(InputError, match=r"at least two values|finite values"):
        summary(values)


def test_unequal_pairs() -> None:
    for function in (paired, paired_bootstrap):
        with pytest.raises(InputError, match="there are 3 and 2"):
            function([1, 2, 3], [1, 2])


def test_shares_resampled_item_by_item() -> None:
    """The binomial draws are those of a bootstrap over items, group by group."""
    counts = [(30, 40), (5, 100), (7, 7)]
    found = bootstrap_shares(counts)
    assert found.mean == pytest.approx((0.75 + 0.05 + 1) / 3)
    random = np.random.default_rng(1)
    groups = [np.arange(total) < right for right, total in counts]
    means = [np.mean([random.choice(group, len(group)).mean() for group in groups]) for _ in range(4000)]
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=4e-3)
    assert bootstrap_shares([(0, 9)]) == Interval(0, 0, 0)
    for bad in ([], [(0, 0)]):
        with pytest.raises(InputError, match="a share needs items"):
            bootstrap_shares(bad)
