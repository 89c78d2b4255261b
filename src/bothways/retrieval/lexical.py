"""BM25 over passages, through bm25s: the baseline beside every embedding."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bothways.errors import InputError, MissingExtraError
from bothways.retrieval.dense import best
from bothways.retrieval.words import words

# Robertson and Zaragoza's usual range is k1 1.2-2, b 0.5-0.8; the inverse document frequency is Lucene's, never negative.
K1, B = 1.5, 0.75


class Lexical:
    """BM25 scores of a fixed list of passages, told by their number."""

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer
        self._numbers: dict[str, int] = scorer.vocab_dict

    @classmethod
    def build(cls, texts: Iterable[str]) -> Lexical:
        """Index passages, numbered from 0 in the order given.

        Raises:
            InputError: no passages.
        """
        # The empty word, which no text has, keeps the vocabulary from ever being empty: bm25s cannot index that.
        numbers = {"": 0}
        rows = [[numbers.setdefault(word, len(numbers)) for word in words(text)] for text in texts]
        if not rows:
            raise InputError("there are no passages to index for BM25")
        scorer = _bm25s().BM25(method="lucene", k1=K1, b=B)
        with np.errstate(invalid="ignore"):  # passages that all are without words have a mean length of 0
            scorer.index((rows, numbers), show_progress=False)
        return cls(scorer)

    @classmethod
    def load(cls, folder: Path) -> Lexical:
        """Read what `save` wrote.

        Raises:
            InputError: files that are missing or damaged.
        """
        try:
            return cls(_bm25s().BM25.load(str(folder)))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder}: the BM25 index cannot be read ({error}); delete the folder and index again") from None

    def save(self, folder: Path) -> None:
        self._scorer.save(str(folder))

    @property
    def passages(self) -> int:
        return int(self._scorer.scores["num_docs"])

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """Up to `k` passages that share a word with the query, best first: (number, score). Ties go to the lower number."""
        known = [self._numbers[word] for word in words(query) if word in self._numbers]
        if not known:
            return []
        # bm25s' own top-k refuses k above the number of passages and fills up with passages of score 0
        scores = self._scorer.get_scores_from_ids(known)
        return [(int(row), float(scores[row])) for row in best(scores, k) if scores[row] > 0]


def _bm25s() -> Any:
    try:
        import bm25s
    except ImportError:
        raise MissingExtraError("BM25 search", "index") from None
    return bm25s
