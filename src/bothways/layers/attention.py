"""Multi-head self-attention over packed sequences (arXiv 1706.03762)."""

from __future__ import annotations

from jaxtyping import Float
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from bothways.config import config
from bothways.layers.context import Context
from bothways.layers.position import Rotary
from bothways.layers.ranges import Dropout
from bothways.ops.attention import Score, attention
from bothways.ops.rotary import rotate


@config
class Attention:
    """Multi-head self-attention.

    Attributes:
        heads: number of heads; each has hidden_size / heads features.
        window: a token sees tokens at most this many positions away; None sees the whole sequence.
        position: positions that act inside the score.
        bias: whether the projections have biases.
        dropout: of attention weights.
        out_dropout: of what attention adds to the stream.
    """

    heads: PositiveInt
    window: NonNegativeInt | None = None
    position: Rotary | None = None
    bias: bool = True
    dropout: Dropout = 0.0
    out_dropout: Dropout = 0.0


class SelfAttention(nn.Module):
    """Queries, keys and values by one projection, `[3, heads, head size]` rows in that order."""

    def __init__(self, config: Attention, size: int) -> None:
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(size, 3 * size, bias=config.bias)
        self.out = nn.Linear(size, size, bias=config.bias)
        self.dropout = nn.Dropout(config.out_dropout)

    def forward(self, x: Float[Tensor, "tokens size"], context: Context) -> Float[Tensor, "tokens size"]:
        heads = self.config.heads
        qkv = self.qkv(x).view(x.shape[0], 3, heads, x.shape[1] // heads)
        if self.config.position is None:
            q, k, v = qkv.unbind(1)
        else:
            qk, v = qkv.split((2, 1), dim=1)
            q, k = rotate(qk, context.rotary[self.config.position.theta, heads]).unbind(1)
            v = v.squeeze(1)
        score = Score(window=self.config.window, dropout=self.config.dropout if self.training else 0.0)
        mixed = attention(q, k, v, context.ragged, context.ragged, score, context.backend)
        return self.dropout(self.out(mixed.reshape(x.shape)))

    def flops(self, lengths: tuple[int, ...]) -> float:
        """Matrix-multiply FLOPs of one forward pass over sequences of these lengths."""
        size = self.qkv.in_features
        reach = self.config.window
        pairs = sum(n * (n if reach is None else min(n, 2 * reach + 1)) for n in lengths)
        return 2.0 * sum(lengths) * 4 * size * size + 4.0 * pairs * size
