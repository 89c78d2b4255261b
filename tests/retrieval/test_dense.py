"""Exact nearest neighbours and the fusion of rankings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.retrieval.dense import best, top_k, unit
from bothways.retrieval.fusion import reciprocal_rank_fusion


@given(scores=st.lists(st.integers(-2, 2), max_size=30), k=st.integers(0, 40))
def test_best_is_a_stable_sort(scores: list[int], k: int) -> None:
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    assert best(np.array(scores, np.float32), k).tolist() == expected


@pytest.mark.parametrize("block", [1, 70, 1 << 20])
def test_top_k_in_blocks(block: int) -> None:
    """Small integers, so that sums are exact and ties are many."""
    random = np.random.default_rng(1)
    queries, documents = (random.integers(-1, 2, (count, 5)).astype(np.float32) for count in (7, 33))
    values, numbers = top_k(queries, documents, 10, block)
    for row, query in enumerate(queries):
        scores = [float(sum(a * b for a, b in zip(query, document, strict=True))) for document in documents]
        expected = sorted(range(33), key=lambda i: (-scores[i], i))[:10]
        assert numbers[row].tolist() == expected
        assert values[row].tolist() == [scores[i] for i in expected]


def test_fewer_documents_than_asked() -> None:
    values, numbers = top_k(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), 5)
    assert numbers.tolist() == [[0, 1], [1, 0]]
    assert values.tolist() == [[1, 0], [1, 0]]


def test_wrong_vectors() -> None:
    good = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="of one size"):
        top_k(good, np.ones((2, 4), np.float32), 1)
    with pytest.raises(ValueError, match="finite"):
        top_k(good, good * np.nan, 1)


def test_unit() -> None:
    assert unit(np.array([[3, 4], [0, 0]], np.float32)).tolist() == pytest.approx(np.array([[0.6, 0.8], [0, 0]]))


def test_reciprocal_rank_fusion_by_hand() -> None:
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["c", "a", "d"]])
    assert [item for item, _ in fused] == ["a", "c", "b", "d"]
    assert [score for _, score in fused] == pytest.approx([1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62, 1 / 63])


def test_fusion_ties_keep_their_order() -> None:
    assert [item for item, _ in reciprocal_rank_fusion([["z", "y"], ["a", "b"]])] == ["z", "a", "y", "b"]
    assert reciprocal_rank_fusion([]) == []
