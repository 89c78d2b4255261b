"""Two pointers at tokens of a text: at what is wrong, and at what would be right (arXiv 2001.00059; 1904.01720 before it)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bothways.config import config
from bothways.layers.heads import Transform, TransformLayer
from bothways.ops.segment import segment_first
from bothways.ragged import Ragged

# Of a token that no pointer may point at: finite, so that a text without any candidate makes no NaN, and e to its power is 0
_NEVER = -1e30


@config
class PointerHead:
    """Points at one token of a text, twice: M·w with M = tanh(Y·W_y + h·W_h), of tokens Y and the sequence's vector h.

    Attributes:
        pooler: what makes h of the first token.
        masking: of tokens that are no candidates. `excluded`: they have no probability; the first token may be pointed at as the
            place of the error, which says that there is none. `zeroed`, as published: their logits are 0, so they have some.
    """

    pooler: Transform = Transform(activation="tanh")
    masking: Literal["excluded", "zeroed"] = "excluded"


class Pointer(nn.Module):
    """Logits of the place of the error, and of its repair, for each token."""

    def __init__(self, config: PointerHead, size: int) -> None:
        super().__init__()
        self.config = config
        self.pooler = TransformLayer(config.pooler, size)
        self.tokens = nn.Linear(size, size, bias=False)
        self.sequence = nn.Linear(size, size, bias=False)
        self.out = nn.Linear(size, 2, bias=False)

    def forward(
        self, hidden: Float[Tensor, "tokens size"], ragged: Ragged, candidates: Bool[Tensor, " tokens"]
    ) -> Float[Tensor, "tokens 2"]:
        beside = self.sequence(self.pooler(segment_first(hidden, ragged)))
        logits = self.out((self.tokens(hidden) + beside[ragged.segments]).tanh()).float()
        allowed = candidates.unsqueeze(1).expand(-1, 2)
        if self.config.masking == "zeroed":
            return logits * allowed
        allowed = allowed.clone()
        allowed[:, 0] |= ragged.positions == 0
        return torch.where(allowed, logits, _NEVER)

    def flops(self, ragged: Ragged) -> float:
        """Matrix-multiply FLOPs of one forward pass."""
        once = self.pooler.flops(ragged.sequences) + 2.0 * ragged.sequences * self.sequence.weight.numel()
        return once + 2.0 * ragged.tokens * (self.tokens.weight.numel() + self.out.weight.numel())
