"""The teacher: a whole model that is asked, and never changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from bothways.encoder.encoder import Encoder
from bothways.encoder.enhanced_mask_decoder import EnhancedMaskDecoder
from bothways.errors import InputError
from bothways.layers.heads import MaskedLm
from bothways.model.model import Model
from bothways.ops.kl_divergence import Projected
from bothways.ragged import Batch, Encoded


@dataclass(frozen=True, eq=False)
class Reading:
    """What an encoder made of a batch, the outputs of its layers included."""

    encoder: Encoder
    encoded: Encoded


def tells_types(encoder: Encoder) -> bool:
    """Whether an encoder tells the texts of a pair apart by token types."""
    return encoder.config.embedding.token_types > 1


def typed_for(encoder: Encoder, batch: Batch) -> Batch:
    """A batch for one of two encoders, of which the other may know token types that this one does not."""
    return batch if tells_types(encoder) else replace(batch, types=None)


class Teacher:
    """A model in evaluation mode and without gradients, which this freezes.

    It is no module of the objective that asks it: neither checkpoints nor the optimizer know it, and `train()` does not reach
    it. It follows the inputs to their device.
    """

    def __init__(self, model: Model) -> None:
        self.model = model.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self  # nothing ever changes it, so copies of an objective share it

    @property
    def encoder(self) -> Encoder:
        return self.model.encoder

    @property
    def name(self) -> str:
        return self.model.name or "the teacher"

    @torch.no_grad()
    def read(self, batch: Batch) -> Reading:
        """What the teacher makes of a batch."""
        self.model.to(batch.ids.device)
        return Reading(self.encoder, self.encoder(batch, keep=True))

    @property
    def masked_lm(self) -> MaskedLm:
        """Its masked-language head.

        Raises:
            InputError: it has none.
        """
        if "masked_lm" not in self.model.heads:
            raise InputError(
                f"{self.name} has no masked-language head to learn from; choose another teacher, or a method without kl"
            )
        return cast("MaskedLm", self.model.heads["masked_lm"])

    @torch.no_grad()
    def predictions(self, reading: Reading, rows: Tensor | None) -> Projected:
        """Logits over the vocabulary, yet to be multiplied: of these rows, or of all."""
        hidden = reading.encoded.hidden
        if "mask_decoder" in self.model.heads:
            hidden = cast("EnhancedMaskDecoder", self.model.heads["mask_decoder"])(self.encoder, reading.encoded)
        return projected(self.masked_lm, hidden if rows is None else hidden[rows], self.encoder)


def projected(head: MaskedLm, hidden: Float[Tensor, "rows size"], encoder: Encoder) -> Projected:
    """What a masked-language head makes of hidden states, up to the multiplication with the vocabulary."""
    return Projected(head.transform(hidden), head.weight(encoder.embedding.tokens.weight), head.bias)
