"""The position-wise network of a layer: plain, or with a gate."""

from __future__ import annotations

from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from bothways.config import config
from bothways.layers.activation import Activation, activate
from bothways.layers.ranges import Dropout


@config
class Plain:
    """down(act(up(x))). `size` features in the middle; `dropout` acts there, `out_dropout` on the result."""

    type: Literal["plain"] = "plain"
    size: PositiveInt
    activation: Activation = "gelu"
    bias: bool = True
    dropout: Dropout = 0.0
    out_dropout: Dropout = 0.0


@config
class Gated:
    """down(act(a) * b) with a, b the halves of up(x): GeGLU, SwiGLU (arXiv 2002.05202).

    Attributes:
        size: the width of each half.
        out_bias: whether the second projection has a bias; None: as the first.
        dropout, out_dropout: as in `Plain`.
    """

    type: Literal["gated"] = "gated"
    size: PositiveInt
    activation: Activation = "gelu"
    bias: bool = True
    out_bias: bool | None = None
    dropout: Dropout = 0.0
    out_dropout: Dropout = 0.0


Mlp = Annotated[Plain | Gated, Field(discriminator="type")]


class FeedForward(nn.Module):
    """The module of either kind of MLP."""

    def __init__(self, config: Plain | Gated, size: int) -> None:
        super().__init__()
        self.config = config
        inner = 2 * config.size if isinstance(config, Gated) else config.size
        self.up = nn.Linear(size, inner, bias=config.bias)
        out_bias = config.out_bias if isinstance(config, Gated) and config.out_bias is not None else config.bias
        self.down = nn.Linear(config.size, size, bias=out_bias)
        self.dropout = nn.Dropout(config.dropout)
        self.out_dropout = nn.Dropout(config.out_dropout)

    def forward(self, x: Float[Tensor, "tokens size"]) -> Float[Tensor, "tokens size"]:
        x = self.up(x)
        if isinstance(self.config, Gated):
            value, gate = x.chunk(2, dim=-1)
            x = activate(self.config.activation, value) * gate
        else:
            x = activate(self.config.activation, x)
        return self.out_dropout(self.down(self.dropout(x)))

    def flops(self, tokens: int) -> float:
        """Matrix-multiply FLOPs of one forward pass over `tokens` tokens."""
        return 2.0 * tokens * (self.up.weight.numel() + self.down.weight.numel())
