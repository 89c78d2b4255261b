"""Layers behind an encoder, of the kind of its first, that are there in pretraining alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder, EncoderLayer
from bothways.errors import InputError
from bothways.layers.attention import Attention
from bothways.layers.norm import build_norm
from bothways.ops.pairs import Pairs
from bothways.ragged import Ragged, Visible


class DecoderLayers(nn.Module):
    """`count` layers, and a norm where the encoder has a last one.

    With `causal`, no token sees one behind it; with `everywhere`, layers have no windows and no global tokens.

    Raises:
        InputError: an encoder whose first layer has no attention, or global tokens where it should be causal.
    """

    def __init__(self, encoder: EncoderConfig, count: int, causal: bool = False, everywhere: bool = False) -> None:
        super().__init__()
        layer = encoder.layer(0)
        if not isinstance(layer.mixer, Attention):
            raise InputError("a decoder of layers like the encoder's needs attention in the first of them, and there is none")
        if causal and layer.mixer.global_tokens:
            raise InputError("a causal decoder cannot be of layers with global tokens; choose another trunk")
        layer = replace(layer, mixer=replace(layer.mixer, causal=layer.mixer.causal or causal))
        if everywhere:
            layer = replace(layer, mixer=replace(layer.mixer, window=None, global_tokens=False))
        self.layers = nn.ModuleList(EncoderLayer(layer, encoder.hidden_size) for _ in range(count))
        self.final_norm = build_norm(encoder.final_norm if count else None, encoder.hidden_size)

    def forward(
        self,
        encoder: Encoder,
        hidden: Float[Tensor, "tokens size"],
        ragged: Ragged,
        visible: Sequence[Visible | None] | None = None,
    ) -> Float[Tensor, "tokens size"]:
        """`visible`: the tokens that each layer sees; None: all. Positions are the encoder's."""
        context, x = encoder.context(ragged), hidden
        for layer, seen in zip(self._stack, visible or [None] * len(self.layers), strict=True):
            x = encoder.through(layer, x, replace(context, visible=seen))
        return self.final_norm(x)

    def look(
        self,
        encoder: Encoder,
        asking: Float[Tensor, "tokens size"],
        seen: Float[Tensor, "tokens size"],
        ragged: Ragged,
        pairs: Pairs,
    ) -> Float[Tensor, "tokens size"]:
        """What each token gathers from `seen`, of which it sees what `pairs` says; every layer looks at the same."""
        context, x = replace(encoder.context(ragged), pairs=pairs), asking
        for layer in self._stack:
            x = encoder.through(layer, x, context, seen)
        return self.final_norm(x)

    def flops(self, ragged: Ragged) -> float:
        """Matrix-multiply FLOPs of one forward pass, as if every token were seen."""
        return sum(one.mixer.flops(ragged.lengths) + one.mlp.flops(ragged.tokens) for one in self._stack)

    @property
    def _stack(self) -> list[EncoderLayer]:
        return [cast("EncoderLayer", one) for one in self.layers]
