"""DeBERTa's relative positions: the table that all layers share, and what a layer makes of it (arXiv 2006.03654)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bothways.layers.norm import build_norm
from bothways.layers.position import Disentangled
from bothways.ops import disentangled
from bothways.ops.graphs import outside


class PositionTable(nn.Module):
    """A vector for each range of distances."""

    def __init__(self, config: Disentangled, size: int) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(2 * config.rows.span, size)
        self.norm = build_norm(config.norm, size)

    def forward(self, longest: int) -> Float[Tensor, "rows size"]:
        """The rows that sequences of at most `longest` tokens use, normalised."""
        first, end = self.config.rows.within(longest)
        return self.norm(self.table(torch.arange(first, end, device=self.table.weight.device)))


class PositionScores(nn.Module):
    """Keys and queries of positions, by projections of their own unless the layer's are shared.

    `bias` and `key_bias` say whether the projections to queries and to keys have biases.
    """

    def __init__(self, config: Disentangled, size: int, heads: int, head_size: int, bias: bool, key_bias: bool) -> None:
        super().__init__()
        self.config = config
        self.size, self.heads, self.head_size = size, heads, head_size
        own, inner = not config.shared, heads * head_size
        self.key = nn.Linear(size, inner, bias=key_bias) if own and config.content_to_position else None
        self.query = nn.Linear(size, inner, bias=bias) if own and config.position_to_content else None
        self.dropout = nn.Dropout(config.dropout)

    def scores(
        self,
        relative: Float[Tensor, "rows size"],
        longest: int,
        weight: Float[Tensor, "outs size"],
        bias: Float[Tensor, " outs"] | None,
    ) -> disentangled.Disentangled | None:
        """What is added to the scores of a layer, whose projections to queries and then keys are `weight` and `bias`.

        `relative` is what `PositionTable` gave for the same `longest`. None: nothing is added.
        """
        config, rows = self.config, self.config.rows
        if config.terms == 1:
            return None
        table = self.dropout(relative)
        biases = (None, None) if bias is None else bias.chunk(2)
        of_queries, of_keys = zip(weight.chunk(2), biases, strict=True)
        return disentangled.Disentangled(
            keys=self._project(self.key, of_keys, table) if config.content_to_position else None,
            queries=self._project(self.query, of_queries, table) if config.position_to_content else None,
            rows=rows,
            first=outside(rows.within, longest)[0],
            scale=config.scale(self.head_size),
        )

    def flops(self, lengths: tuple[int, ...]) -> float:
        """Matrix-multiply FLOPs of one forward pass: each token of a sequence meets all its distances, in either term."""
        first, end = self.config.rows.within(max(lengths, default=0))
        products = sum(n * (2 * n - 1) for n in lengths)
        return 2.0 * (self.config.terms - 1) * self.heads * self.head_size * ((end - first) * self.size + products)

    def _project(
        self, own: nn.Linear | None, shared: tuple[Tensor, Tensor | None], table: Float[Tensor, "rows size"]
    ) -> Float[Tensor, "heads rows head_size"]:
        projected = F.linear(table, *shared) if own is None else own(table)
        return projected.unflatten(1, (self.heads, self.head_size)).transpose(0, 1)
