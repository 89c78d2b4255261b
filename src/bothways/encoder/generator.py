"""The small generator beside a discriminator of replaced tokens: which encoder it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from bothways.config import config
from bothways.encoder.config import EncoderConfig, Layer
from bothways.errors import InputError
from bothways.layers.attention import Attention
from bothways.layers.mlp import BlockDiagonal

Part = Annotated[float, Field(gt=0, le=1)]


@config
class Narrowed:
    """The discriminator's own network, narrower and perhaps less deep.

    Attributes:
        width: the share of the features (ELECTRA: a quarter to a third).
        depth: the share of the layers (DeBERTa v3: a half).
    """

    type: Literal["narrowed"] = "narrowed"
    width: Part = 0.25
    depth: Part = 1.0


@config
class GivenEncoder:
    """An encoder of any kind."""

    type: Literal["given"] = "given"
    encoder: EncoderConfig


Generator = Annotated[Narrowed | GivenEncoder, Field(discriminator="type")]


def generator_of(settings: Narrowed | GivenEncoder, discriminator: EncoderConfig) -> EncoderConfig:
    """The generator's config.

    Raises:
        InputError: a given one with another vocabulary than the discriminator's, or for shorter texts; as `narrowed`.
    """
    if isinstance(settings, Narrowed):
        return narrowed(discriminator, settings.width, settings.depth)
    given = settings.encoder
    if given.vocab_size != discriminator.vocab_size:
        sizes = f"{given.vocab_size} tokens, the discriminator's of {discriminator.vocab_size}"
        raise InputError(f"generator.encoder.vocab_size: the vocabulary is of {sizes}; they have to be one")
    if given.max_length < discriminator.max_length:
        sizes = f"{given.max_length} tokens, the discriminator {discriminator.max_length}"
        raise InputError(f"generator.encoder.max_length: it reads {sizes}; it has to read as many")
    return given


def narrowed(discriminator: EncoderConfig, width: float, depth: float = 1.0) -> EncoderConfig:
    """The generator for a discriminator: a share of its width and of its depth, on an embedding that both can share.

    Heads are of about 64 features, as ELECTRA's are (arXiv 2003.10555); MLPs keep their proportion.

    Raises:
        InputError: a width of no feature, or one that heads of about 64 do not divide.
    """
    size = round(discriminator.hidden_size * width)
    heads = max(1, size // 64)
    if size < 1 or size % heads:
        raise InputError(f"width={width} of {discriminator.hidden_size} features makes {size}: not {heads} equal heads")
    inner = discriminator.embedding.size or discriminator.hidden_size
    return replace(
        discriminator,
        hidden_size=size,
        num_layers=max(1, round(discriminator.num_layers * depth)),
        layers=tuple(_narrowed(layer, width, heads) for layer in discriminator.layers),
        embedding=replace(discriminator.embedding, size=None if inner == size else inner),
    )


def _narrowed(layer: Layer, width: float, heads: int) -> Layer:
    mixer, mlp = layer.mixer, layer.mlp
    if isinstance(mixer, Attention):
        shared = 1 if mixer.kv_heads is None else mixer.heads // mixer.kv_heads
        kv_heads = None if shared == 1 else max(1, heads // shared)
        mixer = replace(mixer, heads=heads, kv_heads=kv_heads, head_size=None)
    whole = mlp.blocks if isinstance(mlp, BlockDiagonal) else 1
    return replace(layer, mixer=mixer, mlp=replace(mlp, size=whole * max(1, round(mlp.size * width / whole))))
