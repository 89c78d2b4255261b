"""Sentence vectors by auto-encoding: a weak decoder gets a text back from its vector and what little else it is shown.

RetroMAE (arXiv 2205.12035): a layer gets all tokens back from the vector and its own sample of the others, each by itself; the
encoder predicts its own masked tokens beside. The paper's plain decoding is here as well: a layer reads the vector in the
place of the first token, and the text with most tokens masked. After TSDAE (arXiv 2104.06979): the encoder reads a text that has
lost most of its tokens, and a causal layer spells out the whole text behind its vector. (The paper's decoder is as deep as the
encoder and looks at the vector by cross-attention; here it is read as a first token.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Num
from pydantic import Field, PositiveInt
from torch import Tensor

from bothways.config import config
from bothways.data.hashing import draw, keys, uniform
from bothways.data.masking import Masking, Share, Vocabulary
from bothways.data.sample import Epochs, Sample
from bothways.encoder.decoder_layers import DecoderLayers
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.layers.heads import MaskedLm, Pooling, pool
from bothways.objectives.causal_lm import PrepareCausal
from bothways.objectives.masked_lm import MaskedInputs, PrepareMasked
from bothways.objectives.objective import Objective
from bothways.ops.pairs import Pairs
from bothways.ragged import Batch, Encoded

# Random numbers of a sample that are not those of the encoder's masks
_DECODER, _DELETION, _PAIRS = 0xDEC0DE, 0xDE1E7E, 0x9A125
# Of a text's pairs, drawn at a time
_ROWS = 256
# The share of the encoder's masks that was published, as independent tokens
_ENCODER = Masking(rate=0.3)
# Every token is predicted, and shown to the others
_WHOLE = Masking(rate=1.0, mask=0.0, random=0.0)


@config
class RetroMae:
    """The decoder sees the vector, and the text with `masked` of its tokens hidden; the encoder has masks of its own.

    Attributes:
        decoding: `enhanced`: all tokens are predicted, each from the vector, its place and what it sees of the others:
            `masked` of them are hidden from it, drawn for it alone. `plain`: the same are hidden from all, and predicted.
    """

    type: Literal["retromae"] = "retromae"
    masked: Share = 0.5
    layers: PositiveInt = 1
    decoding: Literal["enhanced", "plain"] = "enhanced"

    def hidden(self, encoder: Masking) -> Masking:
        """How the decoder's text is hidden: in the encoder's units, by their own share and no other number."""
        if self.decoding == "enhanced":
            return _WHOLE
        units = encoder.measured(self.masked)
        return replace(units, mask=1.0, random=0.0, specials="never", at_most=None)


@config
class Denoising:
    """The encoder reads the text without `deleted` of its tokens, but for one at least; the decoder spells out all of it."""

    type: Literal["denoising"] = "denoising"
    deleted: Share = 0.6
    layers: PositiveInt = 1


AutoEncoder: TypeAlias = Annotated[RetroMae | Denoising, Field(discriminator="type")]


@dataclass(frozen=True, eq=False)
class AutoEncodingInputs:
    """What the encoder reads (and predicts, where it does), and what the decoder does; `tokens` are the text's.

    Attributes:
        pairs: what each token of the decoder sees; None: all.
    """

    encoder: MaskedInputs
    decoder: MaskedInputs
    pairs: Pairs | None = None

    @property
    def tokens(self) -> int:
        return self.decoder.tokens  # the whole text, whatever the encoder reads of it

    def to(self, device: torch.device | str) -> AutoEncodingInputs:
        pairs = None if self.pairs is None else self.pairs.to(device)
        return AutoEncodingInputs(self.encoder.to(device), self.decoder.to(device), pairs)


@dataclass(frozen=True)
class PrepareAutoEncoding:
    """Corrupts every sample twice, by (seed, epoch, its number): for the encoder, and for the decoder.

    `masking` is the encoder's; denoising has none.
    """

    config: RetroMae | Denoising
    vocabulary: Vocabulary
    masking: Masking = _ENCODER

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> AutoEncodingInputs:
        if isinstance(self.config, Denoising):
            fewer = delete_tokens(samples, self.config.deleted, self.vocabulary, seed, epoch)
            read = Batch.of([one.sequences[0] for one in fewer], samples=[one.id for one in fewer])
            nothing = torch.zeros(0, dtype=torch.int64)
            return AutoEncodingInputs(MaskedInputs(read, nothing, nothing, hidden=0), PrepareCausal()(samples, seed, epoch))
        masked = [PrepareMasked(masking, self.vocabulary) for masking in (self.masking, self.config.hidden(self.masking))]
        pairs = draw_pairs(samples, self.config.masked, seed, epoch) if self.config.decoding == "enhanced" else None
        return AutoEncodingInputs(masked[0](samples, seed, epoch), masked[1](samples, seed ^ _DECODER, epoch), pairs)


def draw_pairs(samples: Sequence[Sample], hidden: float, seed: int, epoch: Epochs) -> Pairs:
    """Of each token, a sample of the others, and always the first, in whose place the vector stands; never itself."""
    owners = keys(seed, epoch, _PAIRS, items=np.array([sample.id for sample in samples], dtype=np.int64))
    masks = []
    for sample, owner in zip(samples, owners, strict=True):
        length = len(sample.sequences[0])
        mask = np.empty((length, length), dtype=bool)
        for start in range(0, length, _ROWS):  # numbers to draw by take much more room than what is drawn
            places = np.arange(start * length, min(start + _ROWS, length) * length)
            mask[start : start + _ROWS] = (uniform(draw(np.full(len(places), owner), places)) >= hidden).reshape(-1, length)
        np.fill_diagonal(mask, val=False)
        mask[:, :1] = True
        masks.append(mask.ravel())
    return Pairs(torch.from_numpy(np.concatenate(masks)))


def delete_tokens(samples: Sequence[Sample], share: float, vocabulary: Vocabulary, seed: int, epoch: Epochs) -> list[Sample]:
    """The samples without about `share` of their tokens, each token on its own; special ones stay, and one other at least.

    Where all others would go, each is as likely to be the one that stays, as in TSDAE's code (sentence-transformers).
    """
    owners = keys(seed, epoch, _DELETION, items=np.array([sample.id for sample in samples], dtype=np.int64))
    kept = []
    for sample, owner in zip(samples, owners, strict=True):
        ids = sample.sequences[0]
        drawn = uniform(draw(np.full(len(ids), owner), np.arange(len(ids))))
        ordinary = ~vocabulary.is_special[ids]
        highest = drawn[ordinary].max(initial=0.0)
        stays = (drawn >= min(share, highest)) | ~ordinary
        kept.append(replace(sample, sequences=(ids[stays],), types=None))
    return kept


class AutoEncoding(Objective[AutoEncodingInputs]):
    """Sums: `decoder` (cross-entropy in nats of what the decoder predicts), `accuracy` of these; for RetroMAE `encoder`, its own.

    The head serves both. The vector is that of `pooling`, which is how the model is to be used afterwards.

    Args:
        masking: of the encoder's text, for RetroMAE; denoising deletes tokens instead.
        weight: of the decoder's loss.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: MaskedLm,
        vocabulary: Vocabulary,
        config: RetroMae | Denoising,
        masking: Masking = _ENCODER,
        pooling: Pooling = "cls",
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.config = config
        self.pooling: Pooling = pooling
        enhanced = isinstance(config, RetroMae) and config.decoding == "enhanced"
        self.decoder = DecoderLayers(encoder.config, config.layers, causal=isinstance(config, Denoising), everywhere=enhanced)
        if enhanced and not encoder.config.layer(0).mixer_residual:
            raise InputError("RetroMae.decoding: enhanced decoding needs a first layer with a residual; set it to plain")
        self.prepare = PrepareAutoEncoding(config, vocabulary, masking)
        own = {} if isinstance(config, Denoising) else {"encoder": 1.0}
        self.weights: Mapping[str, float] = {"decoder": weight, **own}

    def counts(self, inputs: AutoEncodingInputs) -> dict[str, Num[Tensor, ""]]:
        predicted = torch.tensor(len(inputs.decoder.labels))
        own = {"encoder": torch.tensor(len(inputs.encoder.labels))} if "encoder" in self.weights else {}
        return {"decoder": predicted, "accuracy": predicted, **own}

    def forward(self, inputs: AutoEncodingInputs) -> dict[str, Num[Tensor, ""]]:
        encoded = self.encoder(inputs.encoder.batch)
        loss, right = self._predicted(self._decoded(encoded, inputs), inputs.decoder)
        sums = {"decoder": loss, "accuracy": right}
        if "encoder" in self.weights:
            sums["encoder"] = self._predicted(encoded.hidden, inputs.encoder)[0]
        return sums

    def _decoded(self, encoded: Encoded, inputs: AutoEncodingInputs) -> Float[Tensor, "tokens size"]:
        """What the decoder makes of its text, whose first token is the vector."""
        vectors, batch = pool(self.pooling, encoded.hidden, encoded.ragged), inputs.decoder.batch
        ragged, x = batch.ragged, self.encoder.embedding(batch)
        there = [number for number, length in enumerate(ragged.lengths) if length]
        first = torch.tensor([ragged.offsets[number] for number in there], device=x.device)
        x = x.index_copy(0, first, vectors[torch.tensor(there, device=x.device)].to(x.dtype))
        if inputs.pairs is None:
            return self.decoder(self.encoder, x, ragged)
        asking, places = vectors[ragged.segments].to(x.dtype), self.encoder.embedding.places(ragged)
        return self.decoder.look(self.encoder, asking if places is None else asking + places, x, ragged, inputs.pairs)

    def _predicted(self, hidden: Tensor, inputs: MaskedInputs) -> tuple[Tensor, Tensor]:
        return self.head.loss(hidden[inputs.rows], self.encoder.embedding.tokens.weight, inputs.labels)

    def flops(self, inputs: AutoEncodingInputs) -> float:
        rows = len(inputs.encoder.labels) + len(inputs.decoder.labels)
        head = self.head.flops(rows, self.encoder.embedding.tokens.weight)
        read, spelt = inputs.encoder.batch.ragged, inputs.decoder.batch.ragged
        return self.encoder.flops(read) + self.encoder.embedding.flops(spelt.tokens) + self.decoder.flops(spelt) + head
