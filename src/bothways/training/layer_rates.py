"""Learning rates that fall from the top of an encoder to its bottom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from bothways.encoder.heights import layers_above
from bothways.errors import InputError
from bothways.training.optimizer import Row


def with_layer_decay(table: Sequence[Row], module: nn.Module, decay: float | None) -> tuple[Row, ...]:
    """The table with every rate multiplied by `decay` once for each layer that stands above its parameter.

    The highest layer, and heads, keep their rate; embeddings have it times `decay ** num_layers`. (That is ULMFiT's, arXiv
    1801.06146, and arXiv 2006.05987's; ELECTRA's code begins two steps lower.) None changes nothing.

    Raises:
        InputError: there is no encoder; or a parameter that stands at several depths: of layers that are one module (ALBERT), or
            of tables that encoders of different depths share.
    """
    if decay is None:
        return tuple(table)
    heights = layers_above(module)
    if not heights:
        raise InputError("training.layer_decay: there are no layers of an encoder here; set it to null")
    parameters = dict(module.named_parameters())
    rows = []
    for row in table:
        above = heights.get(parameters[row.name], [0])
        if len(above) > 1:
            where = f"{row.name} has {', '.join(map(str, above[:-1]))} and {above[-1]} layers above it at once"
            raise InputError(f"training.layer_decay: {where}, since layers share it; a shared one has no place: set it to null")
        rows.append(replace(row, lr=row.lr * decay ** above[0]))
    return tuple(rows)
