"""Causal language modelling: every token predicts the next, which an encoder whose attention is causal does not see.

As the first of two phases, before masked language modelling with the same weights both ways, it is what "biphasic" pretraining is
(arXiv 2507.00994 compares them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor

from bothways.data.sample import Epochs, Sample
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.layers.attention import Attention
from bothways.layers.heads import MaskedLm
from bothways.objectives.masked_lm import MaskedInputs
from bothways.objectives.objective import Objective
from bothways.ragged import Batch


@dataclass(frozen=True)
class PrepareCausal:
    """Packs samples as they are: every row but a sequence's last predicts the token behind it."""

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> MaskedInputs:
        batch = Batch.of([sample.sequences[0] for sample in samples], samples=[sample.id for sample in samples])
        last = np.cumsum(np.array(batch.ragged.lengths, dtype=np.int64)) - 1
        rows = torch.from_numpy(np.setdiff1d(np.arange(batch.ragged.tokens), last))
        return MaskedInputs(batch, rows, batch.ids[rows + 1], hidden=0)


class CausalLanguageModeling(Objective[MaskedInputs]):
    """Cross-entropy in nats over all tokens but the first of each sequence. Sums: `loss`, and `accuracy` beside it.

    Its modules have the names that masked language modelling has for them, so that one goes on from the other's checkpoints.

    Raises:
        InputError: a layer, or a convolution, that sees what should be predicted.
    """

    weights: Mapping[str, float] = MappingProxyType({"loss": 1.0})

    def __init__(self, encoder: Encoder, head: MaskedLm) -> None:
        super().__init__()
        for number, layer in enumerate(encoder.config.layers):
            if not isinstance(layer.mixer, Attention) or not layer.mixer.causal:
                raise InputError(f"encoder.layers.{number}.mixer: predicting the next token needs causal attention; set causal")
        if encoder.config.convolution is not None:
            raise InputError("encoder.convolution: it sees the next token, which is to be predicted; leave it out")
        self.encoder = encoder
        self.head = head
        self.prepare = PrepareCausal()

    def counts(self, inputs: MaskedInputs) -> dict[str, Num[Tensor, ""]]:
        predicted = torch.tensor(len(inputs.labels))
        return {"loss": predicted, "accuracy": predicted}

    def forward(self, inputs: MaskedInputs) -> dict[str, Num[Tensor, ""]]:
        hidden = self.encoder(inputs.batch).hidden[inputs.rows]
        loss, right = self.head.loss(hidden, self.encoder.embedding.tokens.weight, inputs.labels)
        return {"loss": loss, "accuracy": right}

    def flops(self, inputs: MaskedInputs) -> float:
        head = self.head.flops(len(inputs.labels), self.encoder.embedding.tokens.weight)
        return self.encoder.flops(inputs.batch.ragged) + head
