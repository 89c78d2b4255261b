"""Which parameters are the matrices of hidden layers, and which of them are several maps in one."""

from __future__ import annotations

from typing import cast

from torch import nn

from bothways.encoder.encoder import Encoder, EncoderLayer
from bothways.layers.mlp import BlockLinear


def hidden_matrices(module: nn.Module) -> dict[nn.Parameter, tuple[int, ...]]:
    """The weight of every linear map inside an encoder's layers, once: the rows of each of the maps it is made of.

    Queries, keys and values are three maps, the halves of a gated MLP two; most weights are one. Those of block-diagonal
    layers are [blocks, rows, columns], a map in each block. Embeddings, heads, norms, biases and convolutions are none.
    """
    found: dict[nn.Parameter, tuple[int, ...]] = {}
    for encoder in module.modules():
        if not isinstance(encoder, Encoder):
            continue
        for layer in encoder.layers:
            parts = cast("EncoderLayer", layer).config.parts(encoder.config.hidden_size)
            for name, brick in layer.named_modules():
                if isinstance(brick, nn.Linear | BlockLinear):
                    weight = cast("nn.Parameter", brick.weight)
                    found[weight] = tuple(parts.get(name, [weight.shape[-2]]))
    return found
