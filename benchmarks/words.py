"""Logistic regressions on bags of tokens: what an encoder is to beat where it claims to understand what it reads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

TOKEN = r"[^\s]+"
# Of the inverse strength of regularisation
STRENGTHS = (0.01, 0.1, 1.0, 10.0)

Rows = Sequence[Mapping[str, Any]]
Shown = Mapping[str, Callable[[Mapping[str, Any]], str]]


def bag_of_tokens(parts: Mapping[str, Rows], shown: Shown) -> dict[str, Any]:
    """The regression that is best on dev: whether it has each row of test right; and both accuracies of all that were tried.

    Args:
        parts: rows with a `label`, to learn from ("train"), to choose by ("dev") and to be measured on ("test").
        shown: ways to make the text of a row, by their names.
    """
    tried = list(_tries(parts, shown))
    best = max(tried, key=itemgetter("dev"))
    return {**best, "tried": [{name: value for name, value in one.items() if name != "right"} for one in tried]}


def _tries(parts: Mapping[str, Rows], shown: Shown) -> Iterator[dict[str, Any]]:
    labels = {part: [row["label"] for row in rows] for part, rows in parts.items()}
    for name, text in shown.items():
        texts = {part: [text(row) for row in rows] for part, rows in parts.items()}
        for binary, strength in itertools.product((True, False), STRENGTHS):
            counts = CountVectorizer(token_pattern=TOKEN, lowercase=False, binary=binary, min_df=2)
            model = make_pipeline(counts, LogisticRegression(C=strength, max_iter=3000))
            model.fit(texts["train"], labels["train"])
            answers = model.predict(texts["test"])
            right = [bool(one == label) for one, label in zip(answers, labels["test"], strict=True)]
            dev = float(model.score(texts["dev"], labels["dev"]))
            yield {
                "shown": name,
                "binary": binary,
                "C": strength,
                "dev": dev,
                "accuracy": sum(right) / len(right),
                "right": right,
            }
