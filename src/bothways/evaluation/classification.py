"""How well labels and grades are predicted."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TypeAlias

import numpy as np

from bothways.errors import InputError, MissingExtraError

Labels: TypeAlias = Sequence[str | int] | np.ndarray
Values: TypeAlias = Sequence[float | int] | np.ndarray


def classification_scores(truth: Labels, predicted: Labels) -> dict[str, float]:
    """`accuracy`, `macro_f1` (the mean over all classes in either list; 0 for a class never right) and `mcc`.

    Raises:
        InputError: lists of different length, or empty ones.
        MissingExtraError: the extra `eval` is not installed.
    """
    _check(len(truth), len(predicted))
    metrics = _metrics()
    labels = sorted({*truth, *predicted}, key=str)
    return {
        "accuracy": float(metrics.accuracy_score(truth, predicted)),
        "macro_f1": float(metrics.f1_score(truth, predicted, labels=labels, average="macro", zero_division=0)),
        "mcc": float(metrics.matthews_corrcoef(truth, predicted)) if len(labels) > 1 else 0.0,
    }


def binary_f1(truth: Labels, predicted: Labels, positive: str | int) -> float:
    """F1 of one class; 0 where it is neither there nor predicted. Raises as `classification_scores`."""
    _check(len(truth), len(predicted))
    wanted, found = ([int(label == positive) for label in labels] for labels in (truth, predicted))
    return float(_metrics().f1_score(wanted, found, zero_division=0))


def correlation_scores(truth: Values, predicted: Values) -> dict[str, float]:
    """`pearson` and `spearman`; both are NaN where either list is constant, for then they are undefined.

    Raises:
        InputError: lists of different length, of fewer than two values, or with a value that is not finite.
        MissingExtraError: the extra `eval` is not installed.
    """
    _check(len(truth), len(predicted), least=2)
    a, b = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("a correlation needs finite values; there is a NaN or an infinity among them")
    stats = _stats()
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return {"pearson": float("nan"), "spearman": float("nan")}
    return {"pearson": float(stats.pearsonr(a, b).statistic), "spearman": float(stats.spearmanr(a, b).statistic)}


def _check(truth: int, predicted: int, least: int = 1) -> None:
    if truth != predicted or truth < least:
        raise InputError(f"{truth} true and {predicted} predicted values; there must be as many of both, and at least {least}")


def _metrics() -> ModuleType:
    try:
        from sklearn import metrics
    except ImportError:
        raise MissingExtraError("classification scores", "eval") from None
    return metrics


def _stats() -> ModuleType:
    try:
        from scipy import stats
    except ImportError:
        raise MissingExtraError("correlations", "eval") from None
    return stats
