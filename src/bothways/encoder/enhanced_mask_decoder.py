"""DeBERTa's enhanced mask decoder (arXiv 2006.03654): absolute positions enter just before masked tokens are predicted."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from bothways.config import config
from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.layers.attention import Attention
from bothways.ragged import Encoded, Ragged


@config
class MaskDecoderHead:
    """The last layer once more, over its own input, with queries that know where they stand.

    Attributes:
        passes: how often; each gives the next one's queries.
    """

    type: Literal["enhanced_mask"] = "enhanced_mask"
    passes: PositiveInt = 2


class EnhancedMaskDecoder(nn.Module):
    """Hidden states for a masked-language head. It owns the absolute positions, and borrows the encoder's last layer.

    Raises:
        InputError: an encoder of which it would make nothing sensible: of a single layer, or with a last one that is
            pre-norm, has no attention, or none with a residual.
    """

    def __init__(self, config: MaskDecoderHead, encoder: EncoderConfig) -> None:
        super().__init__()
        last = encoder.layer(encoder.num_layers - 1)
        if encoder.num_layers < 2 or last.order == "pre":
            raise InputError("MaskDecoderHead: an enhanced mask decoder needs an encoder of at least two post-norm layers")
        if not isinstance(last.mixer, Attention) or not last.mixer_residual:
            raise InputError("MaskDecoderHead: an enhanced mask decoder needs a last layer of attention with a residual")
        self.config = config
        self.positions = nn.Embedding(encoder.max_length, encoder.hidden_size)

    def forward(self, encoder: Encoder, encoded: Encoded) -> Float[Tensor, "tokens size"]:
        """From what the encoder gave with `keep=True`.

        Raises:
            InputError: `encoded` does not have the layers' outputs.
        """
        if not encoded.layers:
            raise InputError("an enhanced mask decoder reads the last layer's input: encode with keep=True")
        seen, layer = encoded.layers[-2], encoder.stack[-1]
        context = encoder.context(encoded.ragged)
        x = seen + self.positions(encoded.ragged.positions)
        for _ in range(self.config.passes):
            x = encoder.through(layer, x, context, seen)
        return encoder.final_norm(x)

    def flops(self, encoder: Encoder, ragged: Ragged) -> float:
        """Matrix-multiply FLOPs of one forward pass."""
        layer = encoder.stack[-1]
        return self.config.passes * (layer.mixer.flops(ragged.real) + layer.mlp.flops(sum(ragged.real)))
