"""Masked language modelling through a decoder that stands between the encoder and the vocabulary in pretraining alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int, Num
from pydantic import Field, NonNegativeInt
from torch import Tensor

from bothways.config import config
from bothways.data.hashing import draw, keys, uniform
from bothways.data.masking import Masking, Share, Vocabulary
from bothways.data.sample import Epochs, Sample
from bothways.encoder.decoder_layers import DecoderLayers
from bothways.encoder.encoder import Encoder
from bothways.encoder.enhanced_mask_decoder import EnhancedMaskDecoder, MaskDecoderHead
from bothways.errors import InputError
from bothways.layers.heads import MaskedLm
from bothways.objectives.masked_lm import MaskedInputs, MaskedLanguageModeling, PrepareMasked
from bothways.objectives.objective import Objective
from bothways.ragged import Batch, Encoded, Visible

# Of the random numbers of a sample, those for the decoder; masking has its own
_DECODER = 0xDEC0DE
_DRAWS, _ADMIT, _MIX = 2, 0, 1


@config
class GradualUnmasking:
    """Further layers between the encoder and the vocabulary, which at first do not look at tokens that show the mask token.

    BPDec, once called DrBERT (arXiv 2401.15861). The paper says how this is done, and publishes no code; the shares are ours.

    Attributes:
        layers: how many, each of the kind of the encoder's first.
        readmitted: the share of the mask tokens that each of them sees, drawn anew for every sample and epoch; what one sees,
            the next sees too. The last number holds for all further layers.
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


@dataclass(frozen=True, eq=False)
class DecodedInputs:
    """The inputs of masked language modelling, and what the decoder's layers see of them.

    Attributes:
        visible: for each layer; None: all tokens.
        direct: of the predicted rows, those that are predicted from the encoder's output in training.
    """

    masked: MaskedInputs
    visible: tuple[Visible | None, ...]
    direct: Bool[Tensor, " predicted"]

    @property
    def batch(self) -> Batch:
        return self.masked.batch

    @property
    def tokens(self) -> int:
        return self.masked.tokens

    def with_types(self, types: Int[Tensor, " tokens"]) -> DecodedInputs:
        return replace(self, masked=self.masked.with_types(types))

    def to(self, device: torch.device | str) -> DecodedInputs:
        visible = tuple(None if one is None else one.to(device) for one in self.visible)
        return replace(self, masked=self.masked.to(device), visible=visible, direct=self.direct.to(device))


@dataclass(frozen=True)
class PrepareDecoded:
    """Masks samples, and draws what a decoder sees of each by (seed, epoch, its number); `config` of None sees everything."""

    masked: PrepareMasked
    config: GradualUnmasking | None

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> DecodedInputs:
        made = self.masked(samples, seed, epoch)
        ragged, numbers = made.batch.ragged, np.array([sample.id for sample in samples], dtype=np.int64)
        if self.config is None:
            return DecodedInputs(made, (), torch.zeros(len(made.rows), dtype=torch.bool))
        owners = np.repeat(keys(seed, epoch, _DECODER, items=numbers), ragged.lengths)
        places = ragged.positions.numpy() * _DRAWS
        shown = made.batch.ids.numpy() != self.masked.vocabulary.mask_id
        admitted = uniform(draw(owners, places + _ADMIT))
        visible = [shown | (admitted < self.config.share(number)) for number in range(self.config.layers)]
        rows = made.rows.numpy()
        direct = uniform(draw(owners[rows], places[rows] + _MIX)) < self.config.mixing
        return DecodedInputs(
            masked=made,
            visible=tuple(None if mask.all() else Visible.of(mask, ragged) for mask in visible),
            direct=torch.from_numpy(direct),
        )


class DecodedLanguageModeling(Objective[DecodedInputs]):
    """Masked language modelling whose head reads a decoder's output. Sums: those of `MaskedLanguageModeling`.

    An enhanced mask decoder (DeBERTa's) needs a post-norm trunk, and refuses others; gradual unmasking takes any with attention.
    The decoder is none of the model's parts: what is saved is the encoder, and the head. Where an evaluation measures this
    objective, every token is predicted from the decoder's output.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: MaskedLm,
        masking: Masking,
        vocabulary: Vocabulary,
        decoder: GradualUnmasking | MaskDecoderHead,
    ) -> None:
        super().__init__()
        self.masked = MaskedLanguageModeling(encoder, head, masking, vocabulary)
        self.weights = dict(self.masked.weights)
        prepare = PrepareMasked(masking, vocabulary)
        self.decoder: EnhancedMaskDecoder | DecoderLayers
        if isinstance(decoder, MaskDecoderHead):
            self.decoder, self.prepare = EnhancedMaskDecoder(decoder, encoder.config), PrepareDecoded(prepare, None)
        else:
            self.decoder, self.prepare = DecoderLayers(encoder.config, decoder.layers), PrepareDecoded(prepare, decoder)

    @property
    def encoder(self) -> Encoder:
        return self.masked.encoder

    @property
    def head(self) -> MaskedLm:
        return self.masked.head

    def counts(self, inputs: DecodedInputs) -> dict[str, Num[Tensor, ""]]:
        return self.masked.counts(inputs.masked)

    def forward(self, inputs: DecodedInputs) -> dict[str, Num[Tensor, ""]]:
        return self.read(self.encode(inputs), inputs)

    def encode(self, inputs: DecodedInputs) -> Encoded:
        """The encoder's pass, which another objective may read as well."""
        return self.encoder(inputs.masked.batch, keep=isinstance(self.decoder, EnhancedMaskDecoder))

    def read(self, encoded: Encoded, inputs: DecodedInputs) -> dict[str, Num[Tensor, ""]]:
        """The sums, of a batch that has been encoded."""
        if isinstance(self.decoder, EnhancedMaskDecoder):
            hidden = self.decoder(self.encoder, encoded)
        else:
            hidden = self._mixed(encoded, inputs)
        return self.masked.read(replace(encoded, hidden=hidden), inputs.masked)

    def _mixed(self, encoded: Encoded, inputs: DecodedInputs) -> Tensor:
        assert isinstance(self.decoder, DecoderLayers)
        hidden = self.decoder(self.encoder, encoded.hidden, encoded.ragged, inputs.visible)
        if not self.training:
            return hidden
        direct = torch.zeros_like(hidden[:, :1], dtype=torch.bool).index_copy(0, inputs.masked.rows, inputs.direct[:, None])
        return torch.where(direct, encoded.hidden, hidden)

    def flops(self, inputs: DecodedInputs) -> float:
        ragged = inputs.masked.batch.ragged
        own = (
            self.decoder.flops(self.encoder, ragged)
            if isinstance(self.decoder, EnhancedMaskDecoder)
            else self.decoder.flops(ragged)
        )
        return self.masked.flops(inputs.masked) + own
