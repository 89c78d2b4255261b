"""Fresh weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from bothways.encoder.config import TruncatedNormal, Uniform
from bothways.encoder.encoder import EncoderLayer
from bothways.layers.mlp import BlockLinear
from bothways.layers.monarch import LongConvolution, ShortConvolution


def initialise(module: nn.Module, scheme: TruncatedNormal | Uniform, num_layers: int, seed: int) -> None:
    """Draw every weight of an encoder and its heads: matrices by the scheme, biases 0, norms 1.

    Convolutions and block-diagonal matrices have fresh weights of their own, whatever the scheme. A filler's vector is 0.
    The draw depends on the seed and the order of the modules alone.
    """
    generator = torch.Generator().manual_seed(seed)
    residual = {
        id(one) for layer in module.modules() if isinstance(layer, EncoderLayer) for one in (layer.mixer.out, layer.mlp.down)
    }
    shrink = _shrink(scheme, num_layers)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.Embedding | nn.Conv1d):
                _draw(part.weight, scheme, shrink if id(part) in residual else 1.0, generator)
            if isinstance(part, nn.Embedding) and part.padding_idx is not None:
                part.weight[part.padding_idx].zero_()
            if isinstance(part, BlockLinear | ShortConvolution | LongConvolution):
                part.draw(generator)
                continue
            for name, parameter in part.named_parameters(recurse=False):
                if name == "bias" or name.endswith("_bias"):
                    parameter.zero_()
            if isinstance(part, nn.LayerNorm | nn.RMSNorm):
                part.weight.fill_(1.0)


def _shrink(scheme: TruncatedNormal | Uniform, num_layers: int) -> float:
    """What writes into the residual stream starts so many times as large as other matrices."""
    if not isinstance(scheme, TruncatedNormal):
        return 1.0
    if scheme.zero_residual:
        return 0.0
    return 1 / math.sqrt(2 * num_layers) if scheme.residual else 1.0


def _draw(weight: torch.Tensor, scheme: TruncatedNormal | Uniform, factor: float, generator: torch.Generator) -> None:
    if factor == 0.0:
        nn.init.zeros_(weight)
        return
    match scheme:
        case TruncatedNormal():
            std = scheme.std * factor
            nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)
        case Uniform():
            nn.init.uniform_(weight, -scheme.bound, scheme.bound, generator=generator)
