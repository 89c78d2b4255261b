"""The projections of global tokens: what they ask, and what they see of all others (Longformer, arXiv 2004.05150)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bothways.layers.context import Context
from bothways.ops.attention import Score
from bothways.ops.global_attention import Globals, global_attention


class GlobalAttention(nn.Module):
    """Windowed attention in which some tokens see the whole sequence and are seen by all of it.

    The projections here act in the rows of global tokens alone: other tokens see global ones through the
    local keys and values, as they see their neighbours. Keys and values are one projection, in that order.
    """

    def __init__(self, size: int, heads: int, head_size: int, bias: bool) -> None:
        super().__init__()
        self.heads, self.head_size = heads, head_size
        self.query = nn.Linear(size, heads * head_size, bias=bias)
        self.key_value = nn.Linear(size, 2 * heads * head_size, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "tokens size"],
        local: tuple[Tensor, Tensor, Tensor],
        score: Score,
        everywhere: Globals,
        context: Context,
    ) -> Float[Tensor, "tokens heads head_size"]:
        """`local` are the queries, keys and values of all tokens [tokens, heads, head size]."""
        q = self.query(x[everywhere.rows]).unflatten(1, (self.heads, self.head_size))
        k, v = self.key_value(x).unflatten(1, (2, self.heads, self.head_size)).unbind(1)
        return global_attention(local, (q, k, v), everywhere, context.ragged, score, context.backend)

    def flops(self, tokens: int, global_tokens: int) -> float:
        """Matrix-multiply FLOPs of the projections."""
        return 2.0 * (global_tokens * self.query.weight.numel() + tokens * self.key_value.weight.numel())
