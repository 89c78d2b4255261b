"""The encoder as a list of decisions. Every published architecture is a value of `EncoderConfig`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from bothways.config import config
from bothways.errors import InputError
from bothways.layers.attention import Attention
from bothways.layers.convolution import Convolution
from bothways.layers.embedding import Embedding
from bothways.layers.mlp import BlockDiagonal, Gated, Mlp
from bothways.layers.monarch import Monarch
from bothways.layers.norm import Norm
from bothways.layers.position import Bucketed, Disentangled, Rotary
from bothways.layers.ranges import Dropout, Positive

Mixer = Annotated[Attention | Monarch, Field(discriminator="type")]


@config
class Layer:
    """One layer: mixing between tokens, then an MLP, each with a residual.

    Attributes:
        order: "post" normalises the sum (BERT), "pre" normalises what enters (ModernBERT, Llama).
        mixer_residual: without it the mixer's output takes the place of what entered, and has no norm around it (M2-BERT).
        dropout: of what the mixer and the MLP add.
    """

    mixer: Mixer
    mlp: Mlp
    norm: Norm
    order: Literal["pre", "post"]
    mixer_residual: bool = True
    dropout: Dropout = 0.0

    def parts(self, hidden_size: int) -> dict[str, list[int]]:
        """Maps of the layer that are several in one, by name: the rows of each."""
        of_mlp = self.mlp.parts if isinstance(self.mlp, Gated) else {}
        named = (("mixer", self.mixer.parts(hidden_size)), ("mlp", of_mlp))
        return {f"{brick}.{name}": rows for brick, parts in named for name, rows in parts.items()}


@config
class Groups:
    """Layers at several depths that are one module (ALBERT, arXiv 1909.11942).

    The depth is cut into `groups` equal parts. Each part repeats its own `inner` layers, one after another.
    """

    type: Literal["groups"] = "groups"
    groups: PositiveInt = 1
    inner: PositiveInt = 1

    def module(self, number: int, num_layers: int) -> int:
        """The number of the module that stands at a depth."""
        block, inside = divmod(number, self.inner)
        return block * self.groups // (num_layers // self.inner) * self.inner + inside


@config
class TruncatedNormal:
    """Weights from N(0, std²) cut at two standard deviations (BERT).

    Attributes:
        residual: what writes into the residual stream starts smaller, by 1/sqrt(2 · layers)
            (ModernBERT, arXiv 2412.13663).
        zero_residual: what writes into the residual stream starts at 0, so that every layer begins as the identity
            (arXiv 2003.04887, 2203.03466).
    """

    type: Literal["truncated_normal"] = "truncated_normal"
    std: Positive = 0.02
    residual: bool = False
    zero_residual: bool = False

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
        convolution: what the embedding's neighbourhoods add to the first layer's output; None: nothing.
        shared: which layers are one module; None: none are.
        final_norm: after the last layer.
        skip_first_norm: the first layer does not normalise its input again (ModernBERT, whose
            embedding is normalised already).
        filler: the id of a token that fills every sequence up to `max_length`, and is read like any other; only what the layers
            make of the given tokens is returned. None: sequences stay as they are. Only where no layer has attention: it is how
            mixers without a mask were trained, and they know no other length (M2-BERT).
    """

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    num_layers: PositiveInt
    max_length: PositiveInt
    embedding: Embedding
    layers: tuple[Layer, ...]
    convolution: Convolution | None = None
    shared: Groups | None = None
    final_norm: Norm | None = None
    skip_first_norm: bool = False
    filler: NonNegativeInt | None = None
    initialisation: Initialisation = TruncatedNormal()

    def __post_init__(self) -> None:
        if not self.layers:
            raise InputError("EncoderConfig.layers: at least one layer is needed for the pattern")
        for i, layer in enumerate(self.layers):
            self._check_layer(layer, f"EncoderConfig.layers.{i}")
        tables = {(one.position, one.heads) for one in self.attentions if isinstance(one.position, Bucketed | Disentangled)}
        if len(tables) > 1:
            shared = "relative positions share one table, so they, and the number of heads, must be the same in all layers"
            raise InputError(f"EncoderConfig.layers: {shared}")
        if self.convolution is not None and self.hidden_size % self.convolution.groups:
            groups = self.convolution.groups
            raise InputError(f"EncoderConfig.convolution.groups: {groups} does not divide hidden_size {self.hidden_size}")
        self._check_shared()
        if self.skip_first_norm and (self.layers[0].order == "post" or not self.layers[0].mixer_residual):
            raise InputError("EncoderConfig.skip_first_norm: only a pre-norm layer has a norm before it")
        if self.filler is not None and (self.attentions or self.filler >= self.vocab_size):
            raise InputError(f"EncoderConfig.filler: {self.filler} is no token, or a layer has attention, which needs no filler")

    def layer(self, number: int) -> Layer:
        """The config of the layer at this depth, from 0."""
        return self.layers[number % len(self.layers)]

    @property
    def attentions(self) -> list[Attention]:
        """The mixers of the pattern that are attention."""
        return [layer.mixer for layer in self.layers if isinstance(layer.mixer, Attention)]

    def taken(self, length: int) -> int:
        """How many tokens the layers read for a sequence of this length."""
        return self.max_length if self.filler is not None and length else length

    @property
    def depths(self) -> tuple[int, ...]:
        """The number of the module at each depth: 0, 1, 2, ... unless layers are shared."""
        numbers = range(self.num_layers)
        return tuple(self.shared.module(i, self.num_layers) if self.shared else i for i in numbers)

    @property
    def modules(self) -> int:
        """How many layers there are that are modules of their own."""
        return max(self.depths) + 1

    def _check_layer(self, layer: Layer, where: str) -> None:
        mixer, mlp = layer.mixer, layer.mlp
        if isinstance(mixer, Attention):
            _check_attention(mixer, self.hidden_size, f"{where}.mixer")
        elif mixer.length < self.max_length:
            raise InputError(f"{where}.mixer.length: {mixer.length} positions are fewer than max_length {self.max_length}")
        if isinstance(mlp, BlockDiagonal) and (self.hidden_size % mlp.blocks or mlp.size % mlp.blocks):
            sizes = f"hidden_size {self.hidden_size} and size {mlp.size}"
            raise InputError(f"{where}.mlp.blocks: {mlp.blocks} does not divide {sizes}")

    def _check_shared(self) -> None:
        if self.shared is None:
            return
        repeats = self.num_layers // self.shared.inner
        if self.num_layers % self.shared.inner or repeats < self.shared.groups:
            parts = f"{self.shared.groups} groups of repeated {self.shared.inner}"
            raise InputError(f"EncoderConfig.shared: {self.num_layers} layers are not {parts}")
        for i, module in enumerate(self.depths):
            first = self.depths.index(module)
            if self.layer(i) != self.layer(first) or (self.skip_first_norm and i and module == 0):
                raise InputError(f"EncoderConfig.shared: the layers at depths {first} and {i} differ, but are one module")


def _check_attention(mixer: Attention, hidden_size: int, where: str) -> None:
    heads, kv_heads, size = mixer.sizes(hidden_size)
    if mixer.head_size is None and hidden_size % heads:
        raise InputError(f"{where}.heads: {heads} does not divide hidden_size {hidden_size}")
    if heads % kv_heads:
        raise InputError(f"{where}.kv_heads: {kv_heads} does not divide the {heads} heads")
    if isinstance(mixer.position, Disentangled) and kv_heads != heads:
        raise InputError(f"{where}.kv_heads: {kv_heads}, but disentangled positions need as many as heads")
    if isinstance(mixer.position, Rotary) and size % 2:
        raise InputError(f"{where}: rotary positions need an even head size, not {size}")
    if mixer.global_tokens and (mixer.window is None or mixer.causal or mixer.position or kv_heads != heads):
        raise InputError(
            f"{where}.global_tokens: they need a window, and are not to be had with causal, position or fewer kv_heads"
        )
