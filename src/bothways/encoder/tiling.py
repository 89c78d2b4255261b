"""A larger encoder whose first weights are tiles of a smaller, trained one (ModernBERT-large, arXiv 2412.13663).

The smaller tensor lies in the middle of the larger, and repeats around it. What is several maps in one (queries, keys
and values; the two halves of a gated MLP) is tiled one by one. What is indexed by tokens or positions keeps its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError
from bothways.layers.monarch import Monarch
from bothways.layers.position import Bucketed, Disentangled, Learned


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
        InputError: the new encoder is narrower or shallower, shares layers, has another vocabulary, other positions or another
            kind of part.
    """
    if new.hidden_size < old.hidden_size or new.num_layers < old.num_layers:
        raise InputError(f"tiling makes encoders larger: {old.num_layers} layers of {old.hidden_size} features do not become "
                         f"{new.num_layers} of {new.hidden_size}")  # fmt: skip
    if old.shared or new.shared:
        raise InputError("EncoderConfig.shared: an encoder with shared layers is not tiled")
    check_rows(old, new)
    origins = layer_map(old.num_layers, new.num_layers)
    tiled: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        number = int(name.split(".")[1]) if name.startswith("layers.") else None
        if number is None:
            tiled[name] = _parts(name, state.get(name), shape, None, None)
            continue
        rest, origin = name.split(".", 2)[2], origins[number]
        source = state.get(f"layers.{origin}.{rest}")
        if source is None and origin == 0 and old.skip_first_norm and rest.startswith("mixer_norm."):
            like = state["layers.0.mlp_norm.weight"]
            tiled[name] = like.new_full(tuple(shape), 1.0 if rest.endswith("weight") else 0.0)
            continue
        rows = (layer.parts(config.hidden_size) for layer, config in ((old.layer(origin), old), (new.layer(number), new)))
        tiled[name] = _parts(name, source, shape, *(one.get(rest.rpartition(".")[0]) for one in rows))
    return tiled


def check_rows(old: EncoderConfig, new: EncoderConfig) -> None:
    """What tables indexed by tokens, types and positions depend on: a tile of one would say something else.

    Raises:
        InputError: it differs.
    """
    facts: list[tuple[str, object, object]] = [("vocab_size", old.vocab_size, new.vocab_size)]
    facts += [("embedding.token_types", old.embedding.token_types, new.embedding.token_types)]
    facts += [("embedding.position", old.embedding.position, new.embedding.position)]
    if isinstance(old.embedding.position, Learned):
        facts += [("max_length", old.max_length, new.max_length)]
    facts += [("mixer.position", _scored(old), _scored(new))]
    for number, origin in enumerate(layer_map(old.num_layers, new.num_layers)):
        one, two = old.layer(origin).mixer, new.layer(number).mixer
        if isinstance(one, Monarch) and isinstance(two, Monarch):
            name = f"layers.{number}.mixer"
            facts += [(f"{name}.length", one.length, two.length), (f"{name}.features", one.features, two.features)]
    for name, kept, given in facts:
        if kept != given:
            raise InputError(f"tiling keeps the vocabulary and the positions: {name} is {kept}, not {given}")


def _scored(config: EncoderConfig) -> Bucketed | Disentangled | None:
    """The positions inside scores that have a table, which all layers share."""
    positions = (mixer.position for mixer in config.attentions)
    return next((one for one in positions if isinstance(one, Bucketed | Disentangled)), None)


def _parts(name: str, source: Tensor | None, shape: Sequence[int], old: list[int] | None, new: list[int] | None) -> Tensor:
    if source is None or source.dim() != len(shape):
        raise InputError(f"tiling: the smaller encoder has nothing that {name} could begin as")
    if old is None or new is None:
        return tile(source, shape)
    parts = zip(source.split(old), new, strict=True)
    return torch.cat([tile(part, (rows, *shape[1:])) for part, rows in parts])
