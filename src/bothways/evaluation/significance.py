"""How sure a number is: intervals over seeds, and differences between two systems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from bothways.errors import InputError, MissingExtraError

_CONFIDENCE = 0.95
_AT_ONCE = 1 << 22  # draws held in memory


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (n - 1) of `count` values, and the mean's 95 % interval."""

    count: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The mean of the first less that of the second, its 95 % interval, and the two-sided p value of no difference."""

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


Values: TypeAlias = Sequence[float | int] | np.ndarray


def summary(values: Values) -> Summary:
    """Student's t interval of a mean, as over seeds.

    Raises:
        InputError: fewer than two values, or one that is not finite.
    """
    array = _checked(values)
    std = float(array.std(ddof=1))
    mean = float(array.mean())
    gap = _student(mean, std / len(array) ** 0.5, len(array) - 1)
    return Summary(len(array), mean, std, gap.low, gap.high)


def welch(first: Values, second: Values) -> Difference:
    """Two independent samples whose variances may differ. Raises InputError as `summary` does."""
    a, b = _checked(first), _checked(second)
    parts = [float(x.var(ddof=1)) / len(x) for x in (a, b)]
    total = sum(parts)
    spread = sum(part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True))
    return _student(float(a.mean() - b.mean()), total**0.5, total**2 / spread if spread else 1.0)


def paired(first: Values, second: Values) -> Difference:
    """Two samples measured on the same seeds or items, by their differences.

    Raises:
        InputError: different lengths, or as `summary` does.
    """
    gaps = _gaps(first, second)
    return _student(float(gaps.mean()), float(gaps.std(ddof=1)) / len(gaps) ** 0.5, len(gaps) - 1)


def paired_bootstrap(first: Values, second: Values, samples: int = 10_000, seed: int = 0) -> Difference:
    """Two systems on the same queries: the percentile interval of their mean difference over resampled queries.

    The p value is twice the smaller share of resamples on one side of zero.

    Raises:
        InputError: different lengths, or as `summary` does.
    """
    gaps = _gaps(first, second)
    random = np.random.default_rng(seed)
    means: list[np.ndarray] = []
    at_once = max(1, _AT_ONCE // len(gaps))
    for begin in range(0, samples, at_once):
        draws = random.integers(len(gaps), size=(min(at_once, samples - begin), len(gaps)))
        means.append(gaps[draws].mean(axis=1))
    drawn = np.concatenate(means)
    low, high = np.quantile(drawn, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    side = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return Difference(float(gaps.mean()), float(low), float(high), min(1.0, 2 * (side + 1) / (samples + 1)))


def bootstrap_shares(counts: Sequence[tuple[int, int]], samples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of several groups' shares, and its percentile interval over items resampled within each group.

    Args:
        counts: of each group, the items that count and all its items. How many count among as many items drawn with
            replacement is binomial, so that is drawn.

    Raises:
        InputError: no groups, or one without items.
    """
    if not counts or not all(total for _, total in counts):
        raise InputError("a share needs items; there are none")
    random = np.random.default_rng(seed)
    shares = [right / total for right, total in counts]
    drawn = [random.binomial(total, share, samples) / total for share, (_, total) in zip(shares, counts, strict=True)]
    low, high = np.quantile(np.mean(drawn, axis=0), [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Interval(float(np.mean(shares)), float(low), float(high))


def _student(mean: float, error: float, freedom: float | int) -> Difference:
    try:
        from scipy import stats
    except ImportError:
        raise MissingExtraError("confidence intervals", "eval") from None
    if error == 0:
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, freedom)) * error
    return Difference(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, freedom)))


def _gaps(first: Values, second: Values) -> np.ndarray:
    a, b = _checked(first), _checked(second)
    if len(a) != len(b):
        raise InputError(f"paired values come in equal numbers; there are {len(a)} and {len(b)}")
    return a - b


def _checked(values: Values) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise InputError(f"an interval needs at least two values; there are {array.size}")
    if not np.isfinite(array).all():
        raise InputError("an interval needs finite values; there is a NaN or an infinity among them")
    return array
