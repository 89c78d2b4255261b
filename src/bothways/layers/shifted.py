"""An embedding that stands beside another one: its table, which is not learned here, and a difference, which is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class ShiftedEmbedding(nn.Module):
    """`base`, of which nothing is learned here, plus a difference that begins as nothing.

    DeBERTa v3's gradient-disentangled embedding sharing (arXiv 2111.09543). `base` is the very module of another network.
    """

    def __init__(self, base: nn.Embedding) -> None:
        super().__init__()
        self.base = base
        self.delta = nn.Parameter(torch.zeros_like(base.weight))

    def forward(self, ids: Int[Tensor, " tokens"]) -> Float[Tensor, "tokens size"]:
        filler = self.base.padding_idx
        return F.embedding(ids, self.base.weight.detach(), filler) + F.embedding(ids, self.delta, filler)

    @property
    def weight(self) -> Float[Tensor, "rows size"]:
        """The table that both make together."""
        return self.base.weight.detach() + self.delta
