"""Normalisation of hidden states."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from bothways.config import config
from bothways.layers.ranges import Positive


@config
class LayerNorm:
    """Layer normalisation (arXiv 1607.06450)."""

    type: Literal["layer_norm"] = "layer_norm"
    eps: Positive = 1e-5
    bias: bool = True


@config
class RmsNorm:
    """Root-mean-square normalisation: no mean, no bias (arXiv 1910.07467)."""

    type: Literal["rms_norm"] = "rms_norm"
    eps: Positive = 1e-5


Norm = Annotated[LayerNorm | RmsNorm, Field(discriminator="type")]


def build_norm(norm: LayerNorm | RmsNorm | None, size: int) -> nn.Module:
    """The module of a norm over `size` features; the identity where there is none."""
    match norm:
        case LayerNorm():
            return nn.LayerNorm(size, eps=norm.eps, bias=norm.bias)
        case RmsNorm():
            return nn.RMSNorm(size, eps=norm.eps)
        case None:
            return nn.Identity()
