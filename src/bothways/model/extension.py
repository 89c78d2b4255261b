"""A trained model made into another: other rotary positions, longer texts, both directions, or a larger shape."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Literal

import torch

from bothways.encoder.config import EncoderConfig
from bothways.encoder.tiling import tile, tile_encoder
from bothways.errors import InputError
from bothways.layers.attention import Attention
from bothways.layers.position import Learned, Rotary
from bothways.layers.scaling import Linear, Llama3, Yarn
from bothways.model.model import Model


def with_rotary(
    model: Model,
    theta: float | None = None,
    scaling: Linear | Yarn | Llama3 | Literal["none"] | None = None,
    max_length: int | None = None,
    layers: Literal["all", "global", "local"] = "all",
) -> Model:
    """A model with other rotary positions on the very same weights; what is None stays as it is.

    Args:
        theta: the base.
        scaling: how frequencies are changed; "none" takes a scaling away.
        max_length: the longest text, in tokens, of the encoder and of the folder's and the tokenizer's limits.
        layers: which layers' positions are changed: all, those that see the whole text, or those with a window.

    Raises:
        InputError: none of these layers has rotary positions, or a table of positions that ends where it ends.
    """
    config = model.spec.encoder

    def chosen(mixer: Attention) -> bool:
        return isinstance(mixer.position, Rotary) and (layers == "all" or (layers == "global") == (mixer.window is None))

    if not any(map(chosen, config.attentions)):
        raise InputError(f"{model.name or 'this model'} has no rotary positions in {layers} layers")
    if max_length is not None and isinstance(config.embedding.position, Learned):
        raise InputError(f"{model.name or 'this model'} has a table of {config.max_length} positions, which cannot be extended")

    def change(mixer: Attention) -> Attention:
        position = mixer.position
        if not isinstance(position, Rotary) or not chosen(mixer):
            return mixer
        kept = position.scaling if scaling is None else None if scaling == "none" else scaling
        return replace(mixer, position=Rotary(theta=theta or position.theta, scaling=kept))

    return _reread(model, replace(_mixers(config, change), max_length=max_length or config.max_length), max_length)


def ntk_theta(theta: float, growth: float, head_size: int) -> float:
    """The base for texts `growth` times as long, at which the slowest feature turns as often (NTK-aware scaling).

    The "dynamic" scaling of `transformers` takes it anew for each batch; a fixed one is written as `rope_theta`.
    """
    return theta * growth ** (head_size / (head_size - 2))


def bidirectional(model: Model) -> Model:
    """A decoder's very same weights as an encoder: no token is hidden from any other (a window stays as wide)."""
    return _reread(model, _mixers(model.spec.encoder, lambda mixer: replace(mixer, causal=False)), None)


def tiled(model: Model, encoder: EncoderConfig) -> Model:
    """A larger model of the same family and heads, which begins as tiles of this one.

    Raises:
        InputError: as `bothways.encoder.tiling.tile_encoder`; or another `max_length` for an enhanced mask decoder.
    """
    if model.spec.heads.mask_decoder is not None and encoder.max_length != model.spec.encoder.max_length:
        most = model.spec.encoder.max_length
        raise InputError(f"tiling keeps the positions: those of mask_decoder are {most}, not max_length {encoder.max_length}")
    larger = _empty(model, encoder)
    shapes = {name: tensor.shape for name, tensor in larger.state_dict().items()}
    body = {name.removeprefix("encoder."): shape for name, shape in shapes.items() if name.startswith("encoder.")}
    state = tile_encoder(model.encoder.state_dict(), model.spec.encoder, encoder, body)
    heads = {f"heads.{name}": tile(tensor, shapes[f"heads.{name}"]) for name, tensor in model.heads.state_dict().items()}
    larger.load_state_dict({**{f"encoder.{name}": tensor for name, tensor in state.items()}, **heads}, assign=True)
    return larger.requires_grad_(True)


def _mixers(config: EncoderConfig, change: Callable[[Attention], Attention]) -> EncoderConfig:
    """The config with another attention in each layer that has one."""
    changed = (
        replace(layer, mixer=change(mixer)) if isinstance(mixer, Attention) else layer
        for layer, mixer in ((layer, layer.mixer) for layer in config.layers)
    )
    return replace(config, layers=tuple(changed))


def _empty(model: Model, encoder: EncoderConfig) -> Model:
    with torch.device("meta"):
        return Model(
            model.family, replace(model.spec, encoder=encoder), model.tokenizer, model.settings, model.name, model.published
        )


def _reread(model: Model, encoder: EncoderConfig, max_length: int | None) -> Model:
    """The same parameters under another config; limits of texts that are stated become `max_length`."""
    new = _empty(model, encoder)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    new.load_state_dict(model.state_dict(keep_vars=True), assign=True)
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(name not in frozen)
    new.encoder.backend = model.encoder.backend
    if max_length is not None:
        move_limits(new, max_length)
    return new.train(model.training)


def move_limits(model: Model, max_length: int) -> None:
    """Let the limits of texts that its folder's settings and its tokenizer state, where they do, be this one."""
    if model.settings.max_seq_length:
        model.settings = replace(model.settings, max_seq_length=max_length)
    if model.tokenizer is not None and model.tokenizer.max_length:
        model.tokenizer = copy(model.tokenizer)
        model.tokenizer.max_length = max_length
