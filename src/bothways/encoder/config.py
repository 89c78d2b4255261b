"""The encoder as a list of decisions. Every published architecture is a value of `EncoderConfig`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from bothways.config import config
from bothways.errors import InputError
from bothways.layers.attention import Attention
from bothways.layers.embedding import Embedding
from bothways.layers.mlp import Mlp
from bothways.layers.norm import Norm
from bothways.layers.ranges import Dropout, Positive


@config
class Layer:
    """One layer: mixing between tokens, then an MLP, each with a residual.

    Attributes:
        order: "post" normalises the sum (BERT), "pre" normalises what enters (ModernBERT).
        dropout: of what the mixer and the MLP add.
    """

    mixer: Attention
    mlp: Mlp
    norm: Norm
    order: Literal["pre", "post"]
    dropout: Dropout = 0.0


@config
class TruncatedNormal:
    """Weights from N(0, std²) cut at two standard deviations (BERT).

    Attributes:
        residual: what writes into the residual stream starts smaller, by 1/sqrt(2 · layers)
            (ModernBERT, arXiv 2412.13663).
    """

    type: Literal["truncated_normal"] = "truncated_normal"
    std: Positive = 0.02
    residual: bool = False

    @property
    def spread(self) -> float:
        """The one number of the scheme that a published config holds."""
        return self.std


@config
class Uniform:
    """Weights uniform in [-bound, bound] (NeoBERT, arXiv 2502.19587)."""

    type: Literal["uniform"] = "uniform"
    bound: Positive = 0.02

    @property
    def spread(self) -> float:
        """The one number of the scheme that a published config holds."""
        return self.bound


Initialisation = Annotated[TruncatedNormal | Uniform, Field(discriminator="type")]


@config
class EncoderConfig:
    """A bidirectional encoder.

    Attributes:
        max_length: the longest sequence, special tokens included.
        layers: a pattern, cycled over the depth: ModernBERT's is (global, local, local).
        final_norm: after the last layer.
        skip_first_norm: the first layer does not normalise its input again (ModernBERT, whose
            embedding is normalised already).
    """

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    num_layers: PositiveInt
    max_length: PositiveInt
    embedding: Embedding
    layers: tuple[Layer, ...]
    final_norm: Norm | None = None
    skip_first_norm: bool = False
    initialisation: Initialisation = TruncatedNormal()

    def __post_init__(self) -> None:
        if not self.layers:
            raise InputError("EncoderConfig.layers: at least one layer is needed for the pattern")
        for i, layer in enumerate(self.layers):
            heads = layer.mixer.heads
            if self.hidden_size % heads:
                raise InputError(f"EncoderConfig.layers.{i}.mixer.heads: {heads} does not divide hidden_size {self.hidden_size}")
            if layer.mixer.position is not None and self.hidden_size // heads % 2:
                raise InputError(
                    f"EncoderConfig.layers.{i}.mixer: rotary positions need an even head size, not {self.hidden_size // heads}"
                )
        if self.skip_first_norm and self.layers[0].order == "post":
            raise InputError("EncoderConfig.skip_first_norm: only a pre-norm layer has a norm before it")

    def layer(self, number: int) -> Layer:
        """The config of the layer at this depth, from 0."""
        return self.layers[number % len(self.layers)]
