"""Attention in which every query has keys of its own."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bothways.ops.attention import Score, alone, attention_by_mask, visible
from bothways.ragged import Ragged


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which token of a packed batch sees which of its sequence, besides what the layer allows.

    Attributes:
        masks: one sequence after the other, its [length, length] by rows: whether the row's token sees the column's.
    """

    masks: Bool[Tensor, " pairs"]

    def to(self, device: torch.device | str) -> Pairs:
        return Pairs(self.masks.to(device, non_blocking=True))

    def split(self, ragged: Ragged) -> list[Bool[Tensor, "_ _"]]:
        """The mask of each sequence, [length, length]."""
        parts = self.masks.split([length * length for length in ragged.lengths])
        return [part.view(length, length) for part, length in zip(parts, ragged.lengths, strict=True)]


def attention_of_pairs(
    q: Float[Tensor, "tokens heads size"],
    k: Float[Tensor, "tokens kv_heads size"],
    v: Float[Tensor, "tokens kv_heads size"],
    ragged: Ragged,
    pairs: Pairs,
    score: Score,
) -> Float[Tensor, "tokens heads size"]:
    """One sequence after the other, each with its mask. A query that sees nothing gives zeros."""
    out = []
    for (begin, end), mask in zip(pairwise(ragged.offsets), pairs.split(ragged), strict=True):
        if begin == end:
            continue
        one = alone(ragged, begin, end)
        seen = mask & visible(one, one, score)
        out.append(attention_by_mask(q[begin:end], k[begin:end], v[begin:end], one, one, score, seen))
    return torch.cat(out) if out else q * 0
