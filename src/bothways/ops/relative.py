"""Scores edited by how far a key stands from its query."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


def alibi_slopes(heads: int) -> list[float]:
    """The slope of each head (arXiv 2108.12409).

    For a power of two, 2^(-8/heads) and its powers; else those of the next lower power of two, then
    every other one of twice as many heads.
    """
    lower = 1 << (heads.bit_length() - 1)

    def powers(count: int) -> list[float]:
        return [2.0 ** (-8.0 * (i + 1) / count) for i in range(count)]

    return powers(lower) + powers(2 * lower)[0::2][: heads - lower]


def relative_buckets(ahead: Int[Tensor, "*shape"], buckets: int, max_distance: int) -> Int[Tensor, "*shape"]:
    """The bucket of each distance (key minus query), as in T5 (arXiv 1910.10683), both directions.

    Keys ahead have the upper half. A quarter of the buckets holds one distance each, the next quarter
    ranges that grow by a constant factor, up to `max_distance`; all that is further shares the last.
    """
    half = buckets // 2
    exact = half // 2
    distance = ahead.abs()
    growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (half - exact)
    far = (exact + growth.long()).clamp(max=half - 1)
    return half * (ahead > 0) + torch.where(distance < exact, distance, far)


@dataclass(frozen=True, eq=False)
class Distance:
    """Subtracts slope times distance, a slope a head: ALiBi in both directions."""

    slopes: Float[Tensor, " heads"]

    def dense(
        self, q: Tensor, k: Tensor, rows: Int[Tensor, " rows"], columns: Int[Tensor, " columns"]
    ) -> Float[Tensor, "1 heads rows columns"]:
        distance = (rows[:, None] - columns[None, :]).abs()
        return -self.slopes[None, :, None, None].to(q.dtype) * distance.to(q.dtype)


@dataclass(frozen=True, eq=False)
class Bucket:
    """Adds the entry of each head for the distance's bucket, from a table [buckets, heads].

    With `first_apart` the table has a row more, the entry of keys that are a sequence's first token;
    a first token that looks takes the bucket of no distance ahead, which is free.
    """

    table: Float[Tensor, "buckets heads"]
    max_distance: int
    first_apart: bool = False

    def dense(
        self, q: Tensor, k: Tensor, rows: Int[Tensor, " rows"], columns: Int[Tensor, " columns"]
    ) -> Float[Tensor, "1 heads rows columns"]:
        buckets = len(self.table) - self.first_apart
        bucket = relative_buckets(columns[None, :] - rows[:, None], buckets, self.max_distance)
        if self.first_apart:
            bucket = bucket.masked_fill(columns == 0, buckets).masked_fill(rows[:, None] == 0, buckets // 2)
        return self.table[bucket].permute(2, 0, 1)[None]
