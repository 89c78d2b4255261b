"""Semantic textual similarity: does the cosine of two sentences order pairs as people do?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bothways.data.reading import read_lines
from bothways.errors import InputError
from bothways.evaluation.classification import correlation_scores
from bothways.evaluation.table import Table
from bothways.retrieval.dense import unit
from bothways.retrieval.embedder import Embedder
from bothways.retrieval.words import words


@dataclass(frozen=True, eq=False)
class SentencePairs:
    """Pairs of sentences and the similarity people gave them, float64 [pairs]."""

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    grades: np.ndarray


def read_sts(file: str | Path) -> SentencePairs:
    """Read the STS benchmark's layout: tab-separated genre, file, year, number, grade, first, second (and sources).

    Raises:
        InputError: a line with fewer than seven fields, or a grade that is no number.
    """
    file = Path(file)
    rows: list[tuple[str, str, float]] = []
    for number, line in read_lines(file, "utf-8"):
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) < 7:
            raise InputError(f"{file}:{number}: {len(fields)} fields where the STS benchmark has at least 7")
        try:
            rows.append((fields[5], fields[6], float(fields[4])))
        except ValueError:
            raise InputError(f"{file}:{number}: the grade '{fields[4]}' is no number") from None
    if not rows:
        raise InputError(f"{file}: no pairs")
    first, second, grades = zip(*rows, strict=True)
    return SentencePairs(file.stem, first, second, np.array(grades))


def sts_spearman(embedder: Embedder, pairs: SentencePairs) -> float:
    """Spearman's correlation of the cosines with the grades."""
    vectors = unit(embedder.encode([*pairs.first, *pairs.second]).astype(np.float64))
    count = len(pairs.grades)
    return correlation_scores(pairs.grades, (vectors[:count] * vectors[count:]).sum(axis=1))["spearman"]


def evaluate_sts(pairs: SentencePairs, embedders: Sequence[Embedder]) -> Table:
    """Each embedder beside the cosine of word counts."""
    bag = [_overlap(words(a), words(b)) for a, b in zip(pairs.first, pairs.second, strict=True)]
    rows: list[tuple[str | float, ...]] = [("bag of words", correlation_scores(pairs.grades, bag)["spearman"])]
    rows += [(embedder.name, sts_spearman(embedder, pairs)) for embedder in embedders]
    return Table(pairs.name, ("system", "Spearman"), tuple(rows), f"{len(pairs.grades):,} pairs")


def _overlap(first: Sequence[str], second: Sequence[str]) -> float:
    """The cosine of two bags of words; 0 where one is empty."""
    a, b = Counter(first), Counter(second)
    norms = [sum(count**2 for count in bag.values()) ** 0.5 for bag in (a, b)]
    return sum(count * b[word] for word, count in a.items()) / (norms[0] * norms[1]) if all(norms) else 0.0
