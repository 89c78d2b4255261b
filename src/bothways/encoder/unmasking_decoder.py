"""A decoder that helps pretraining and is dropped afterwards: gradual unmasking (BPDec, once called DrBERT, arXiv 2401.15861)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal, cast

from jaxtyping import Float
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from bothways.config import config
from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder, EncoderLayer
from bothways.errors import InputError
from bothways.layers.attention import Attention
from bothways.layers.norm import build_norm
from bothways.ragged import Ragged, Visible

Share = Annotated[float, Field(ge=0.0, le=1.0)]


@config
class GradualUnmasking:
    """Further layers between the encoder and the vocabulary. At first they do not look at tokens that show the mask token.

    The paper says how this is done, and publishes no code; the shares are ours.

    Attributes:
        layers: how many, each of the kind of the encoder's first.
        readmitted: the share of the mask tokens that each of them sees, drawn anew for every sample and epoch; what one sees, the
            next sees too. The last number holds for all further layers.
        mixing: the share of the predicted tokens that are, in training, predicted from the encoder's output in place of the
            decoder's.
    """

    type: Literal["gradual_unmasking"] = "gradual_unmasking"
    layers: NonNegativeInt = 2
    readmitted: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.5, 1.0)
    mixing: Share = 0.1

    def __post_init__(self) -> None:
        if list(self.readmitted) != sorted(self.readmitted):
            raise InputError(f"GradualUnmasking.readmitted: {self.readmitted} falls; a layer sees what the one before it saw")

    def share(self, layer: int) -> float:
        """Of the mask tokens, what the layer of this number sees."""
        return self.readmitted[min(layer, len(self.readmitted) - 1)]


class UnmaskingDecoder(nn.Module):
    """Hidden states for a masked-language head, from those of the encoder.

    Raises:
        InputError: an encoder whose first layer has no attention: there would be nothing to hide tokens from.
    """

    def __init__(self, config: GradualUnmasking, encoder: EncoderConfig) -> None:
        super().__init__()
        layer = encoder.layer(0)
        if not isinstance(layer.mixer, Attention):
            raise InputError("GradualUnmasking: the encoder's first layer has no attention, from which it could hide mask tokens")
        self.config = config
        self.layers = nn.ModuleList(EncoderLayer(layer, encoder.hidden_size) for _ in range(config.layers))
        self.final_norm = build_norm(encoder.final_norm if config.layers else None, encoder.hidden_size)

    def forward(
        self, encoder: Encoder, hidden: Float[Tensor, "tokens size"], ragged: Ragged, visible: Sequence[Visible | None]
    ) -> Float[Tensor, "tokens size"]:
        """`visible`: the tokens that each layer sees; None: all."""
        context, x = encoder.context(ragged), hidden
        for layer, seen in zip(self.layers, visible, strict=True):
            x = layer(x, replace(context, visible=seen))
        return self.final_norm(x)

    def flops(self, ragged: Ragged) -> float:
        """Matrix-multiply FLOPs of one forward pass, as if every token were seen."""
        layers = [cast("EncoderLayer", one) for one in self.layers]
        return sum(one.mixer.flops(ragged.lengths) + one.mlp.flops(ragged.tokens) for one in layers)
