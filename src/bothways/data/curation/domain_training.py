"""From labelled texts to a classifier of a domain, with its threshold and with what it does on texts it has not seen."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from bothways.data.curation.domain import Domain, DomainFile, DomainTraining, LeastPrecision, LeastRecall, Scores, Share
from bothways.data.curation.domain_features import features
from bothways.data.curation.words import hashes, words
from bothways.data.table import LabelledRows
from bothways.errors import InputError, MissingExtraError

_FOLDS = 5
_LEAST = 10  # of either side: below it no figure of the held-out rows would mean a thing
_Z = 1.959963984540054  # of a 95 % interval


@dataclass(frozen=True, slots=True)
class _Row:
    text: str
    wanted: bool
    key: str


def train_domain(rows: LabelledRows, training: DomainTraining) -> Domain:
    """Train, choose the threshold, measure. The same rows in any order make the same classifier, to the bit.

    Raises:
        InputError: a label that no row has, a text without words, one labelled both ways, too few rows, or an aim out of reach.
        MissingExtraError: the extra `eval` is not installed.
    """
    every, repeated, labels = _distinct(rows, training)
    held, learned = _split(every, training.held_out)
    matrix, wanted = _matrix(learned, training), _wanted(learned)
    folds = _folds(wanted)
    scores = np.zeros(len(learned))
    for fold in range(_FOLDS):
        rest, part = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        weights, bias = _fit(matrix[rest], wanted[rest], training.strength)
        scores[part] = _scores(matrix[part], weights, bias)
    threshold = choose_threshold(scores, wanted, training.aim)
    weights, bias = _fit(matrix, wanted, training.strength)
    weights = weights.astype(np.float32)
    unseen = _scores(_matrix(held, training), weights, bias)
    file = DomainFile(
        training=training,
        labels=labels,
        repeated=repeated,
        threshold=threshold,
        bias=bias,
        cross_validated=measure(scores, wanted, threshold),
        held_out=measure(unseen, _wanted(held), threshold),
    )
    return Domain(file, weights)


def choose_threshold(
    scores: Float64[np.ndarray, " rows"], wanted: Bool[np.ndarray, " rows"], aim: LeastPrecision | LeastRecall
) -> float:
    """The threshold that reaches the aim and loses the least otherwise, halfway between two scores.

    Raises:
        InputError: no threshold reaches it.
    """
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.flatnonzero(np.append(falling[1:] < falling[:-1], True))  # equal scores are chosen together
    right = np.cumsum(wanted[order])[last]
    precision, recall = right / (last + 1), right / max(int(wanted.sum()), 1)
    asked, other = (precision, recall) if isinstance(aim, LeastPrecision) else (recall, precision)
    reached = np.flatnonzero(asked >= aim.least)
    if not len(reached):
        raise InputError(
            f"no threshold reaches a {aim.type} of {aim.least:g} on these labels, the best is {asked.max():.3f}; "
            f"ask for less, or label more texts"
        )
    place = int(last[max(reached, key=lambda one: (other[one], asked[one]))])
    below = falling[place + 1] if place + 1 < len(falling) else 0.0
    return float((falling[place] + below) / 2)


def measure(scores: Float64[np.ndarray, " rows"], wanted: Bool[np.ndarray, " rows"], threshold: float) -> Scores:
    """Precision and recall of what scores at least the threshold."""
    chosen = scores >= threshold
    right = int((chosen & wanted).sum())
    return Scores(rows=len(scores), precision=wilson(right, int(chosen.sum())), recall=wilson(right, int(wanted.sum())))


def wilson(part: int, whole: int) -> Share:
    """A share with Wilson's 95 % interval (1927), which stays sound for few rows and near 0 and 1."""
    if not whole:
        return Share(part=part, whole=0, value=None, low=None, high=None)
    value, spread = part / whole, _Z**2 / whole
    middle = (value + spread / 2) / (1 + spread)
    half = (_Z / (1 + spread)) * (value * (1 - value) / whole + spread / (4 * whole)) ** 0.5
    return Share(part=part, whole=whole, value=value, low=max(middle - half, 0.0), high=min(middle + half, 1.0))


def _distinct(rows: LabelledRows, training: DomainTraining) -> tuple[list[_Row], int, dict[str, int]]:
    """The rows whose texts differ, ordered by a hash of their words; how many repeat another; and how many each label has."""
    seen: dict[str, tuple[_Row, str]] = {}
    counts: Counter[str] = Counter()
    for (text, *_), label, where in zip(rows.texts, rows.labels, rows.where, strict=True):
        found = hashes(words(text))
        if not len(found):
            raise InputError(f"{where}: a text without words; remove the row")
        row = _Row(text, str(label) in training.wanted, hashlib.sha256(found.tobytes()).hexdigest())
        other = seen.setdefault(row.key, (row, where))
        if other[0].wanted != row.wanted:
            raise InputError(f"{where}: the same text as {other[1]}, labelled the other way; keep one of them")
        if other[0] is row:
            counts[str(label)] += 1
    missing = [label for label in training.wanted if label not in counts]
    if missing:
        raise InputError(f"no row is labelled '{missing[0]}'; the labels are {', '.join(sorted(counts)[:10])}")
    for wanted, side in ((True, "in the domain"), (False, "outside it")):
        count = sum(row.wanted == wanted for row, _ in seen.values())
        if count < _LEAST:
            raise InputError(f"{count} labelled texts {side}; label at least {_LEAST}, better a few hundred")
    ordered = sorted((row for row, _ in seen.values()), key=lambda row: row.key)
    return ordered, len(rows) - len(ordered), dict(sorted(counts.items()))


def _split(rows: Sequence[_Row], share: float) -> tuple[list[_Row], list[_Row]]:
    """Those to measure on and those to learn from, the same share of either side; by hash, not by order."""
    held = []
    for wanted in (True, False):
        side = [row for row in rows if row.wanted == wanted]
        count = min(max(round(share * len(side)), 1), len(side) - _FOLDS)
        held += side[:count]
    taken = {row.key for row in held}
    return sorted(held, key=lambda row: row.key), [row for row in rows if row.key not in taken]


def _wanted(rows: Sequence[_Row]) -> Bool[np.ndarray, " rows"]:
    return np.array([row.wanted for row in rows])


def _folds(wanted: Bool[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows"]:
    """Each row's part of the cross-validation: the rows of either side in turn."""
    folds = np.zeros(len(wanted), np.int64)
    for side in (True, False):
        rows = np.flatnonzero(wanted == side)
        folds[rows] = np.arange(len(rows)) % _FOLDS
    return folds


def _matrix(rows: Sequence[_Row], training: DomainTraining) -> Any:
    """The rows' features, [rows, bins], sparse."""
    try:
        from scipy.sparse import csr_array
    except ImportError:
        raise MissingExtraError("training a domain's classifier", "eval") from None
    parts = [features(row.text, training.features) for row in rows]
    ends = np.cumsum([0, *(len(bins) for bins, _ in parts)])
    values, bins = np.concatenate([one for _, one in parts]), np.concatenate([one for one, _ in parts])
    return csr_array((values, bins.astype(np.int32), ends.astype(np.int32)), shape=(len(rows), 2 << training.features.bits))


def _fit(matrix: Any, wanted: Bool[np.ndarray, " rows"], strength: float) -> tuple[Float64[np.ndarray, " bins"], float]:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise MissingExtraError("training a domain's classifier", "eval") from None
    # one thread and no chance: the same rows give the same weights
    model = LogisticRegression(C=strength, class_weight="balanced", solver="liblinear", random_state=0, max_iter=1000)
    used = np.unique(matrix.indices)  # the solver's work grows with the bins, most of which are empty
    model.fit(matrix[:, used], wanted)
    weights = np.zeros(matrix.shape[1])
    weights[used] = model.coef_[0]
    return weights, float(model.intercept_[0])


def _scores(matrix: Any, weights: np.ndarray, bias: float) -> Float64[np.ndarray, " rows"]:
    return 1 / (1 + np.exp(-np.clip(matrix @ weights.astype(np.float64) + bias, -60, 60)))
