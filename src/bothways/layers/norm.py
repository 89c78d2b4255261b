"""Normalisation of hidden states."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from bothways.config import config
from bothways.layers.ranges import Positive


@config
class LayerNorm:
    """Layer normalisation (arXiv 1607.06450).

    Attributes:
        precision: what is normalised, and the norm's weights, are rounded to it first (MosaicBERT's low-precision LayerNorm,
            arXiv 2312.17482); None: as they come, and in float32 under autocast.
    """

    type: Literal["layer_norm"] = "layer_norm"
    eps: Positive = 1e-5
    bias: bool = True
    precision: Literal["bf16"] | None = None


@config
class RmsNorm:
    """Root-mean-square normalisation: no mean, no bias (arXiv 1910.07467)."""

    type: Literal["rms_norm"] = "rms_norm"
    eps: Positive = 1e-5


Norm = Annotated[LayerNorm | RmsNorm, Field(discriminator="type")]


def build_norm(norm: LayerNorm | RmsNorm | None, size: int) -> nn.Module:
    """The module of a norm over `size` features; the identity where there is none."""
    match norm:
        case LayerNorm(precision="bf16"):
            return Rounded(size, eps=norm.eps, bias=norm.bias)
        case LayerNorm():
            return nn.LayerNorm(size, eps=norm.eps, bias=norm.bias)
        case RmsNorm():
            return nn.RMSNorm(size, eps=norm.eps)
        case None:
            return nn.Identity()


class Rounded(nn.LayerNorm):
    """A LayerNorm in bfloat16, whose result has the precision of what entered."""

    def forward(self, input: Float[Tensor, "*rows size"]) -> Float[Tensor, "*rows size"]:
        x, weight, bias = (None if one is None else one.bfloat16() for one in (input, self.weight, self.bias))
        assert x is not None
        with torch.autocast(input.device.type, enabled=False):
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps).to(input.dtype)
