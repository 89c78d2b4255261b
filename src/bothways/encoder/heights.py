"""How many layers of its encoder stand above a parameter."""

from __future__ import annotations

from collections import defaultdict
from typing import cast

from torch import nn

from bothways.encoder.encoder import Encoder
from bothways.layers.shifted import ShiftedEmbedding


def layers_above(module: nn.Module) -> dict[nn.Parameter, list[int]]:
    """For every parameter of an encoder's layers and of what stands before them: how many of its layers stand above, ascending.

    All of them above embeddings and tables of relative positions, none above the last layer. What stands behind the layers, and
    what is of no encoder, is not named. A layer that comes at several depths, and what encoders of different depths share, has
    several numbers; a table that an embedding reads and does not move (`ShiftedEmbedding`) is of the one that moves it.
    """
    found: dict[nn.Parameter, set[int]] = defaultdict(set)
    for encoder in module.modules():
        if not isinstance(encoder, Encoder):
            continue
        stack = encoder.stack
        # the convolution adds to what the first layer gives out
        parts = [(len(stack), encoder.embedding), (len(stack), encoder.relative), (len(stack) - 1, encoder.convolution)]
        parts += [(len(stack) - 1 - depth, layer) for depth, layer in enumerate(stack)]
        for above, part in parts:
            for parameter in () if part is None else _moved(part):
                found[parameter].add(above)
    return {parameter: sorted(numbers) for parameter, numbers in found.items()}


def _moved(part: nn.Module) -> set[nn.Parameter]:
    bases = {one.base.weight for one in part.modules() if isinstance(one, ShiftedEmbedding)}
    return set(part.parameters()) - cast("set[nn.Parameter]", bases)
