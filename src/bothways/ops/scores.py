"""Attention scores themselves, as distillation compares them: sequence by sequence, equal lengths together."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bothways.ops.attention import Score
from bothways.ragged import Ragged

# Scores of one group of sequences: more sequences than make this many numbers are taken in turn.
_SCORES = 1 << 22


def equal_lengths(ragged: Ragged, heads: int) -> Iterator[Int[Tensor, "count length"]]:
    """The rows of sequences of one length at a time, 2²² scores of `heads` heads at most; empty ones are left out."""
    by_length: dict[int, list[int]] = {}
    for start, length in zip(ragged.offsets, ragged.lengths, strict=False):
        if length:
            by_length.setdefault(length, []).append(start)
    for length, starts in by_length.items():
        together = max(1, _SCORES // (heads * length**2))
        places = torch.arange(length, device=ragged.positions.device)
        for first in range(0, len(starts), together):
            yield torch.tensor(starts[first : first + together], device=places.device)[:, None] + places


def scores(
    q: Float[Tensor, "tokens heads size"],
    k: Float[Tensor, "tokens kv_heads size"],
    rows: Int[Tensor, "count length"],
    score: Score,
) -> tuple[Float[Tensor, "count heads length length"], Bool[Tensor, "length length"] | None]:
    """What the softmax of attention is taken of, in float32, and which positions see which (None: all see all).

    Scores of pairs that do not see each other are there all the same.
    """
    if (group := q.shape[1] // k.shape[1]) > 1:
        k = k.repeat_interleave(group, dim=1)
    queries, keys = q[rows].transpose(1, 2).float(), k[rows].transpose(1, 2).float()
    places = torch.arange(rows.shape[1], device=rows.device)
    made = queries @ keys.transpose(2, 3) * (1 / math.sqrt(q.shape[2]) if score.scale is None else score.scale)
    if score.edit is not None:
        made = made + score.edit.dense(queries, keys, places, places)
    return made, score.sees(places, places)
