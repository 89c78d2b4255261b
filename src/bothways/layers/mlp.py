"""The position-wise network of a layer: plain, or with a gate; with full matrices or block-diagonal ones."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
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

    @property
    def parts(self) -> dict[str, list[int]]:
        """Maps that are several in one, by name: the rows of a and b."""
        return {"up": [self.size] * 2}


@config
class BlockDiagonal:
    """`Gated` with block-diagonal matrices, a bias after the second alone (Monarch Mixer, arXiv 2310.12109).

    A block sees an equal part of the features: with four blocks, a is made of the first half of them, b of the second.
    """

    type: Literal["block_diagonal"] = "block_diagonal"
    size: PositiveInt
    blocks: PositiveInt = 4
    activation: Activation = "gelu"
    dropout: Dropout = 0.0
    out_dropout: Dropout = 0.0


Mlp = Annotated[Plain | Gated | BlockDiagonal, Field(discriminator="type")]


class BlockLinear(nn.Module):
    """A linear layer whose matrix is zero but for equal blocks along its diagonal: `weight` [blocks, out/blocks, in/blocks]."""

    def __init__(self, size: int, out: int, blocks: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(blocks, out // blocks, size // blocks))
        self.bias = nn.Parameter(torch.empty(out)) if bias else None
        self.draw()

    def draw(self, generator: torch.Generator | None = None) -> None:
        """Fresh weights, uniform: a weight's bound is 1/sqrt(inputs of its block), a bias's 1/sqrt(outputs) (as published)."""
        bound = self.weight.shape[2] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(len(self.bias) ** -0.5), len(self.bias) ** -0.5, generator=generator)

    def forward(self, x: Float[Tensor, "tokens size"]) -> Float[Tensor, "tokens out"]:
        blocks, _, inputs = self.weight.shape
        out = torch.bmm(x.view(len(x), blocks, inputs).transpose(0, 1), self.weight.transpose(1, 2)).transpose(0, 1).flatten(1)
        return out if self.bias is None else out + self.bias


class FeedForward(nn.Module):
    """The module of any kind of MLP."""

    def __init__(self, config: Plain | Gated | BlockDiagonal, size: int) -> None:
        super().__init__()
        self.config = config
        inner = config.size if isinstance(config, Plain) else 2 * config.size
        if isinstance(config, BlockDiagonal):
            self.up: nn.Linear | BlockLinear = BlockLinear(size, inner, config.blocks, bias=False)
            self.down: nn.Linear | BlockLinear = BlockLinear(config.size, size, config.blocks, bias=True)
        else:
            out_bias = config.out_bias if isinstance(config, Gated) and config.out_bias is not None else config.bias
            self.up = nn.Linear(size, inner, bias=config.bias)
            self.down = nn.Linear(config.size, size, bias=out_bias)
        self.dropout = nn.Dropout(config.dropout)
        self.out_dropout = nn.Dropout(config.out_dropout)

    def forward(self, x: Float[Tensor, "tokens size"]) -> Float[Tensor, "tokens size"]:
        x = self.up(x)
        if not isinstance(self.config, Plain):
            value, gate = x.chunk(2, dim=-1)
            x = activate(self.config.activation, value) * gate
        else:
            x = activate(self.config.activation, x)
        return self.out_dropout(self.down(self.dropout(x)))

    def flops(self, tokens: int) -> float:
        """Matrix-multiply FLOPs of one forward pass over `tokens` tokens."""
        return 2.0 * tokens * (self.up.weight.numel() + self.down.weight.numel())
