"""Scores edited by how far a key stands from its query."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bothways.ragged import Ragged

ScoreMod: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


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

    def flex(self, q: Tensor, k: Tensor, queries: Ragged, keys: Ragged) -> ScoreMod:
        slopes, row_at, column_at = self.slopes, queries.positions, keys.positions
        return lambda score, batch, head, row, column: score - slopes[head] * (row_at[row] - column_at[column]).abs()


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
        return self._entries(rows[:, None], columns[None, :]).permute(2, 0, 1)[None].to(q.dtype)

    def flex(self, q: Tensor, k: Tensor, queries: Ragged, keys: Ragged) -> ScoreMod:
        # every pair of positions would be too many: distances have their entries, and the first token its own
        row_at, column_at, furthest = queries.positions, keys.positions, queries.longest
        steps = torch.arange(-furthest, keys.longest + 1, device=q.device)
        by_distance = self.table[relative_buckets(steps, self._ordinary, self.max_distance)]
        if not self.first_apart:
            return lambda score, batch, head, row, column: score + by_distance[column_at[column] - row_at[row] + furthest, head]
        first = self.table[torch.tensor([self._ordinary // 2, self._ordinary], device=q.device)]
        return lambda score, batch, head, row, column: (
            score
            + torch.where(
                row_at[row] == 0,
                first[0, head],
                torch.where(
                    column_at[column] == 0, first[1, head], by_distance[column_at[column] - row_at[row] + furthest, head]
                ),
            )
        )

    @property
    def _ordinary(self) -> int:
        return len(self.table) - self.first_apart

    def _entries(self, rows: Tensor, columns: Tensor) -> Tensor:
        bucket = relative_buckets(columns - rows, self._ordinary, self.max_distance)
        if self.first_apart:
            bucket = bucket.masked_fill(columns == 0, self._ordinary).masked_fill(rows == 0, self._ordinary // 2)
        return self.table[bucket]
