"""Tokens that look at a sequence from beside it: they see all of it and themselves, and nothing sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bothways.ops.attention import Backend, Score, attention
from bothways.ragged import Ragged, Visible


@dataclass(frozen=True, eq=False)
class Beside:
    """A packed batch whose sequences end in tokens that only look on.

    Attributes:
        seen: the tokens of the sequences themselves, at positions 0, 1, ...
        asking: those behind them, at any positions.
    """

    seen: Visible
    asking: Visible

    @classmethod
    def of(cls, asking: np.ndarray, ragged: Ragged) -> Beside:
        """From a mask on the host, bool [tokens], that says which tokens only look on: the last of each sequence."""
        return cls(Visible.of(~asking, ragged), Visible.of(asking, ragged))

    def to(self, device: torch.device | str) -> Beside:
        return Beside(self.seen.to(device), self.asking.to(device))


def attention_beside(
    q: Float[Tensor, "tokens heads size"],
    k: Float[Tensor, "tokens kv_heads size"],
    v: Float[Tensor, "tokens kv_heads size"],
    ragged: Ragged,
    beside: Beside,
    score: Score,
    backend: Backend | None = None,
) -> Float[Tensor, "tokens heads size"]:
    """The sequences as if nothing were beside them; and what looks on, over its sequence and itself."""
    seen, asking = beside.seen, beside.asking
    inner = attention(q[seen.rows], k[seen.rows], v[seen.rows], seen.ragged, seen.ragged, score, backend)
    outer = attention(q[asking.rows], k, v, asking.ragged, ragged, replace(score, own=True), backend)
    return torch.zeros_like(q).index_copy(0, seen.rows, inner).index_copy(0, asking.rows, outer)
