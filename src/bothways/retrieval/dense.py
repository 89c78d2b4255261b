"""Exact nearest neighbours in memory, block by block, for evaluation and small collections."""

from __future__ import annotations

import numpy as np

# Scores held at once: 256 MiB of float32.
_BLOCK = 1 << 26


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """The indices of the `k` largest of scores [n], largest first; ties go to the lower index. int64 [min(k, n)]."""
    k = min(k, len(scores))
    if k < 1:
        return np.zeros(0, np.int64)
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= threshold)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]


def top_k(queries: np.ndarray, documents: np.ndarray, k: int, block: int = _BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """The `k` documents of largest inner product with each query.

    Args:
        queries: float32 [queries, size].
        documents: float32 [documents, size].
        block: the most scores held at once.

    Returns:
        Scores float32 and document numbers int64, both [queries, min(k, documents)], best first; ties
        go to the lower number.

    Raises:
        ValueError: shapes that do not fit, or vectors that are not finite.
    """
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1]:
        raise ValueError(f"queries {queries.shape} and documents {documents.shape} must be [n, size] of one size")
    if not (np.isfinite(queries).all() and np.isfinite(documents).all()):
        raise ValueError("vectors must be finite")
    rows = max(1, block // max(len(documents), 1))
    k = min(k, len(documents))
    values, numbers = np.zeros((len(queries), k), np.float32), np.zeros((len(queries), k), np.int64)
    for begin in range(0, len(queries), rows):
        for row, scores in enumerate(queries[begin : begin + rows] @ documents.T, begin):
            numbers[row] = best(scores, k)
            values[row] = scores[numbers[row]]
    return values, numbers


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors [n, size] scaled to length 1, so that inner products are cosines; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)
