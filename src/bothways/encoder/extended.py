"""An encoder's pass over ids that its vocabulary does not have, and over tokens that only look on."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.layers.attention import Attention
from bothways.ops.beside import Beside
from bothways.ragged import Batch


def encode_extended(
    encoder: Encoder, batch: Batch, table: Float[Tensor, "rows inner"], beside: Beside | None = None
) -> Float[Tensor, "tokens size"]:
    """Hidden states, of ids that are rows of `table`: the encoder's own tokens first, others behind them.

    With `beside`, its tokens see their sequence and themselves, and the sequences are as they would be alone.
    """
    x = last = encoder.embedding(batch, table)
    context = replace(encoder.context(batch.ragged), beside=beside)
    for output in encoder.deepen(x, context):
        last = output
    return encoder.final_norm(last)


def check_extended(encoder: EncoderConfig, beside: bool, what: str) -> None:
    """Raises InputError where an encoder cannot do so; `what` wants it to.

    Filler would be looked at; what is not attention, and looks at neighbours, would look at what only looks on.
    """
    if encoder.filler is not None:
        raise InputError(f"{what}: an encoder that fills up its sequences cannot be given shorter ones; choose another trunk")
    mixers = [encoder.layer(i).mixer for i in range(encoder.num_layers)]
    if beside and (encoder.convolution is not None or not all(isinstance(one, Attention) for one in mixers)):
        raise InputError(
            f"{what}: a layer that is not attention looks at its neighbours, and cannot be kept from looking at masks that "
            "stand beside the text; choose a trunk of attention alone"
        )
