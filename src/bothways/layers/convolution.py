"""A convolution over neighbouring tokens, beside the first layer (DeBERTa v2, arXiv 2006.03654)."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from bothways.config import config
from bothways.errors import InputError
from bothways.layers.activation import Activation, activate
from bothways.layers.norm import Norm, build_norm
from bothways.layers.ranges import Dropout
from bothways.ragged import Ragged


@config
class Convolution:
    """What the neighbourhood of each token in the embedding adds to the first layer's output.

    Attributes:
        kernel: tokens that meet in one place, itself in the middle: an odd number.
        groups: parts of the features that know nothing of each other.
        norm: of the sum.
        dropout: of what the convolution gives, before the activation.
    """

    kernel: Annotated[int, Field(ge=1)] = 3
    groups: PositiveInt = 1
    activation: Activation = "gelu"
    norm: Norm
    dropout: Dropout = 0.0

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise InputError(f"Convolution.kernel: {self.kernel} has no middle; an odd number does")


class TokenConvolution(nn.Module):
    def __init__(self, config: Convolution, size: int) -> None:
        super().__init__()
        self.config = config
        self.conv = nn.Conv1d(size, size, config.kernel, groups=config.groups)
        self.norm = build_norm(config.norm, size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "tokens size"], residual: Float[Tensor, "tokens size"], ragged: Ragged
    ) -> Float[Tensor, "tokens size"]:
        """norm(residual + act(conv(x))), each sequence between zeros."""
        reach = self.config.kernel // 2
        # a gap of zeros before each sequence and after the last: what lies beyond the gap is out of reach
        slots = torch.arange(x.shape[0], device=x.device) + reach * (ragged.segments + 1)
        spaced = x.new_zeros(max(x.shape[0], 1) + reach * (ragged.sequences + 1), x.shape[1]).index_copy(0, slots, x)
        out = self.conv(spaced.T[None])[0].T[slots - reach]
        return self.norm(residual + activate(self.config.activation, self.dropout(out)))

    def flops(self, ragged: Ragged) -> float:
        """Matrix-multiply FLOPs of one forward pass, the gaps between sequences included, and no filler."""
        places = sum(ragged.real) + self.config.kernel // 2 * (len(ragged.real) - 1)
        return 2.0 * places * self.conv.weight.numel()
