"""Masked language modelling, and what tells texts apart, on one encoder at once."""

from __future__ import annotations

from typing import Literal, cast

from bothways.config import config
from bothways.encoder.encoder import Encoder
from bothways.layers.heads import MaskedLm, Pooling
from bothways.objectives.combine import Combine
from bothways.objectives.contrastive import Contrastive, InfoNce
from bothways.objectives.masked_lm import MaskedLanguageModeling


@config
class Views:
    """Each text is read twice, unmasked, and finds itself among the others of its batch: dropout alone tells the two apart.

    SimCSE without labels (arXiv 2104.08821).
    """

    type: Literal["views"] = "views"
    loss: InfoNce = InfoNce()


class MaskedViews(Combine):
    """Parts: `masked_lm`, and `contrastive`, whose loss counts `weight` times.

    Raises:
        InputError: an encoder without dropout.
    """

    def __init__(self, masked: MaskedLanguageModeling, views: Views, pooling: Pooling, weight: float) -> None:
        contrast = Contrastive(masked.encoder, pooling, views.loss, views=True)
        super().__init__({"masked_lm": masked, "contrastive": contrast}, {"contrastive": weight})

    @property
    def masked(self) -> MaskedLanguageModeling:
        return cast("MaskedLanguageModeling", self.parts["masked_lm"])

    @property
    def encoder(self) -> Encoder:
        return self.masked.encoder

    @property
    def head(self) -> MaskedLm:
        return self.masked.head
