"""Scores between contents and relative positions: DeBERTa's disentangled attention (arXiv 2006.03654).

Distances are those of the query from the key (query minus key). Both terms take the vector of the same
distance, as the released models were trained; the paper's equation has the opposite one for the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bothways.ops.relative import ScoreMod
from bothways.ragged import Ragged

# Keys are taken against positions in pieces of at least this many: a piece meets more distances than it needs
# by its own length.
_PIECE = 64


def log_buckets(distance: Int[Tensor, "*shape"], buckets: int, max_distance: int) -> Int[Tensor, "*shape"]:
    """The bucket of each distance, with its sign (arXiv 2006.03654, version 2 of the model).

    Up to half of `buckets` each distance has its own. Further ones share buckets that grow by a constant
    factor, rounded up; `max_distance` - 1 has the last but one. Past that they go on growing.
    """
    half = buckets // 2
    far = distance.abs().clamp(min=half)
    # in float32, and with the operations in this order: what lies at the edge of a bucket depends on it
    growth = torch.log(far / half) / torch.log(torch.tensor((max_distance - 1) / half)) * (half - 1)
    return torch.where(far == half, distance, (growth.ceil().long() + half) * distance.sign())


@dataclass(frozen=True)
class Rows:
    """Which row of a table of relative positions stands for a distance.

    Attributes:
        span: the table has this many rows on either side; distances past it share the last one.
        buckets: rows on either side where far distances share them; None: a row for each distance.
        max_distance: how far the buckets reach.
    """

    span: int
    buckets: int | None
    max_distance: int

    def of(self, distance: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        bucket = distance if self.buckets is None else log_buckets(distance, self.buckets, self.max_distance)
        return (bucket + self.span).clamp(0, 2 * self.span - 1)

    @lru_cache(maxsize=4096)  # noqa: B019  (rows are values, and few)
    def within(self, longest: int) -> tuple[int, int]:
        """The first row in use by sequences of at most `longest` tokens, and the row after the last."""
        furthest = max(longest - 1, 0)
        first, last = self.of(torch.tensor([-furthest, furthest])).tolist()
        return first, last + 1


@dataclass(frozen=True, eq=False)
class Disentangled:
    """Adds, scaled, the products of queries with the positions' keys, and of keys with the positions' queries.

    Attributes:
        keys: of positions [heads, rows, size], for products with queries; None leaves that term out.
        queries: of positions, for products with keys; None leaves it out.
        rows: the row for a distance, in the whole table.
        first: the row of the whole table that the given ones begin with.
        scale: factor of the products.
    """

    keys: Float[Tensor, "heads rows size"] | None
    queries: Float[Tensor, "heads rows size"] | None
    rows: Rows
    first: int
    scale: float

    def dense(
        self,
        q: Float[Tensor, "count heads rows size"],
        k: Float[Tensor, "count heads columns size"],
        rows: Int[Tensor, " rows"],
        columns: Int[Tensor, " columns"],
    ) -> Float[Tensor, "count heads rows columns"]:
        """The definition: all products with the table, from which each pair takes those of its distance."""
        index = self._at(rows[:, None] - columns[None, :])
        added = q.new_zeros(q.shape[0], q.shape[1], len(rows), len(columns))
        if self.keys is not None:
            products = q @ self.keys.transpose(1, 2)
            added = added + products.gather(3, index.expand(*q.shape[:2], -1, -1))
        if self.queries is not None:
            products = k @ self.queries.transpose(1, 2)
            added = added + products.gather(3, index.T.expand(*k.shape[:2], -1, -1)).transpose(2, 3)
        return added * self.scale

    def consecutive(
        self,
        q: Float[Tensor, "count heads rows size"],
        k: Float[Tensor, "count heads columns size"],
        first_row: int,
        first_column: int,
    ) -> Float[Tensor, "count heads rows columns"] | None:
        """`dense` for positions that follow one another from these two on.

        Nothing is gathered: the table is laid out by distance, so that each query's products are a run of its row.
        None: both terms are left out.
        """
        rows, columns = q.shape[2], k.shape[2]
        last = first_row + rows - 1 - first_column
        terms = []
        if self.keys is not None:
            # by column minus row: from the last row and the first column on
            terms.append(_runs(q, self._laid(self.keys, last, -1, rows + columns - 1), columns))
        if self.queries is not None:
            # by row minus column: from the first row and the last column of each piece on
            pieces = k.split(max(rows, _PIECE), dim=2)
            ends = accumulate(piece.shape[2] for piece in pieces)
            parts = [
                _runs(piece, self._laid(self.queries, first_row - first_column - end + 1, 1, rows + piece.shape[2] - 1), rows)
                for piece, end in zip(pieces, ends, strict=True)
            ]
            terms.append((torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]).transpose(2, 3))
        return None if not terms else terms[0] if len(terms) == 1 else terms[0] + terms[1]

    def flex(self, q: Tensor, k: Tensor, queries: Ragged, keys: Ragged) -> ScoreMod:
        """As a `score_mod`: all products with the table, from which each pair takes those of its distance."""
        row_at, column_at, furthest = queries.positions, keys.positions, max(queries.longest, keys.longest, 1) - 1
        index = self._at(torch.arange(-furthest, furthest + 1, device=q.device))
        of_rows = None if self.keys is None else torch.einsum("qhs,hrs->qhr", q, self.keys) * self.scale
        of_columns = None if self.queries is None else torch.einsum("khs,hrs->khr", k, self.queries) * self.scale

        # a term that is left out adds a number of no weight: one lambda, as FlexAttention wants it, and no branch in it
        nothing = q.new_zeros(1, 1, 1)
        a, b = nothing if of_rows is None else of_rows, nothing if of_columns is None else of_columns
        with_rows, with_columns = int(of_rows is not None), int(of_columns is not None)
        return lambda score, batch, head, row, column: (
            score
            + a[row * with_rows, head * with_rows, index[row_at[row] - column_at[column] + furthest] * with_rows]
            + b[column * with_columns, head * with_columns, index[row_at[row] - column_at[column] + furthest] * with_columns]
        )

    def _at(self, distance: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """The place of each distance in the given tables.

        They begin and end where the CPU said (`Rows.within`): a device whose logarithm is another by a last bit may say
        a row more.
        """
        table = self.keys if self.queries is None else self.queries
        last = 0 if table is None else table.shape[1] - 1
        return (self.rows.of(distance) - self.first).clamp(0, last)

    def _laid(self, table: Tensor, start: int, step: int, count: int) -> Float[Tensor, "heads distances size"]:
        """The scaled vectors of consecutive distances."""
        distances = start + step * torch.arange(count, device=table.device)
        return table[:, self._at(distances)] * self.scale


def _runs(
    x: Float[Tensor, "count heads rows size"], laid: Float[Tensor, "heads distances size"], columns: int
) -> Float[Tensor, "count heads rows columns"]:
    """Products of each row with `columns` of the vectors: the last row with those from 0 on, the one before from 1 on, ...

    Of an array [rows, distances] read on as [rows, distances - 1], each row begins one further to the left.
    """
    count, heads, rows, size = x.shape
    distances = laid.shape[1]
    products = torch.bmm(x.transpose(0, 1).reshape(heads, count * rows, size), laid.transpose(1, 2))
    if rows == 1:
        return products.view(heads, count, 1, distances).transpose(0, 1)
    # one view, and not slices of a flat one: the gradient of each would be another array of zeros
    one = rows * distances
    return products.as_strided((count, heads, rows, columns), (one, count * one, distances - 1, 1), rows - 1)
