"""A larger encoder whose first weights are tiles of a smaller, trained one (ModernBERT-large, arXiv 2412.13663).

The smaller tensor lies in the middle of the larger, and repeats around it. Queries, keys, values and the two halves of a
gated MLP are tiled one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bothways.encoder.config import EncoderConfig, Layer
from bothways.errors import InputError
from bothways.layers.attention import Attention
from bothways.layers.mlp import Gated

_TABLES = ("embedding.tokens.weight", "embedding.positions.weight", "embedding.types.weight")


def tile(old: Tensor, shape: Sequence[int]) -> Tensor:
    """new[j] = old[(j - floor((N - n) / 2)) mod n] on each axis, n being the old size and N the new."""
    for axis, size in enumerate(shape):
        rows = (torch.arange(size) - (size - old.shape[axis]) // 2) % old.shape[axis]
        old = old.index_select(axis, rows.to(old.device))
    return old


def layer_map(old: int, new: int) -> list[int]:
    """For each new layer, the old one it begins as: old * i / new, halves to the even number."""
    return [min(round(old * i / new), old - 1) for i in range(new)]


def tile_encoder(
    state: Mapping[str, Tensor], old: EncoderConfig, new: EncoderConfig, shapes: Mapping[str, Sequence[int]]
) -> dict[str, Tensor]:
    """The state of a larger encoder from that of a smaller.

    A norm that the first layer lacks (`skip_first_norm`) begins as ones where a later layer comes from it.

    Args:
        shapes: the shape of each tensor of the larger.

    Raises:
        InputError: the new encoder is narrower or shallower, shares layers, has another vocabulary or another kind of part.
    """
    if new.hidden_size < old.hidden_size or new.num_layers < old.num_layers:
        raise InputError(f"tiling makes encoders larger: {old.num_layers} layers of {old.hidden_size} features do not become "
                         f"{new.num_layers} of {new.hidden_size}")  # fmt: skip
    if old.shared or new.shared:
        raise InputError("EncoderConfig.shared: an encoder with shared layers is not tiled")
    origins = layer_map(old.num_layers, new.num_layers)
    tiled: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        number = int(name.split(".")[1]) if name.startswith("layers.") else None
        if number is None:
            tiled[name] = _whole(name, state.get(name), shape)
            continue
        rest, origin = name.split(".", 2)[2], origins[number]
        source = state.get(f"layers.{origin}.{rest}")
        if source is None and origin == 0 and old.skip_first_norm and rest.startswith("mixer_norm."):
            like = state["layers.0.mlp_norm.weight"]
            tiled[name] = like.new_full(tuple(shape), 1.0 if rest.endswith("weight") else 0.0)
            continue
        rows = (_rows(rest, layer, config.hidden_size) for layer, config in ((old.layer(origin), old), (new.layer(number), new)))
        tiled[name] = _parts(name, source, shape, *rows)
    return tiled


def _whole(name: str, source: Tensor | None, shape: Sequence[int]) -> Tensor:
    if name in _TABLES and source is not None and len(source) != shape[0]:
        raise InputError(f"tiling keeps the vocabulary and the positions: {name} has {len(source)} rows, not {shape[0]}")
    return _parts(name, source, shape, None, None)


def _parts(name: str, source: Tensor | None, shape: Sequence[int], old: list[int] | None, new: list[int] | None) -> Tensor:
    if source is None or source.dim() != len(shape):
        raise InputError(f"tiling: the smaller encoder has nothing that {name} could begin as")
    if old is None or new is None:
        return tile(source, shape)
    parts = zip(source.split(old), new, strict=True)
    return torch.cat([tile(part, (rows, *shape[1:])) for part, rows in parts])


def _rows(rest: str, layer: Layer, hidden_size: int) -> list[int] | None:
    """The rows of each part of a tensor that holds several; None where it is one."""
    if rest.startswith("mixer.qkv.") and isinstance(layer.mixer, Attention):
        heads, kv_heads, size = layer.mixer.sizes(hidden_size)
        return [heads * size, kv_heads * size, kv_heads * size]
    if rest.startswith("mlp.up.") and isinstance(layer.mlp, Gated):
        return [layer.mlp.size] * 2
    return None
