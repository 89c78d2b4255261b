"""A second task beside masked language modelling: one label for the two parts of a text (BERT's and ALBERT's pretraining)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int, Num
from torch import Tensor

from bothways.data.sample import Epochs, Sample
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.layers.heads import Classifier, MaskedLm
from bothways.objectives.decoded_lm import DecodedInputs, DecodedLanguageModeling
from bothways.objectives.masked_lm import MaskedInputs, MaskedLanguageModeling
from bothways.objectives.objective import Objective, Prepare

Masked: TypeAlias = MaskedLanguageModeling | DecodedLanguageModeling


@dataclass(frozen=True, eq=False)
class PairedInputs:
    """A corrupted batch of pairs, and the class of each, int64 [sequences]."""

    masked: MaskedInputs | DecodedInputs
    labels: Int[Tensor, " sequences"]

    @property
    def tokens(self) -> int:
        return self.masked.tokens

    def to(self, device: torch.device | str) -> PairedInputs:
        return replace(self, masked=self.masked.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class PreparePaired:
    """Masks samples as `masked` does, and keeps their token types and labels.

    Attributes:
        typed: whether the encoder has token types to tell the parts apart.

    Raises:
        InputError: a sample that is not a labelled pair.
    """

    masked: Prepare[MaskedInputs] | Prepare[DecodedInputs]
    typed: bool

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> PairedInputs:
        made = self.masked(samples, seed, epoch)
        types: list[np.ndarray] = []
        for sample in samples:
            if sample.types is None or sample.label is None:
                raise InputError(f"sample {sample.id} is not a labelled pair of texts; open the text as `PairData`")
            types.append(sample.types[0])
        if self.typed:
            made = made.with_types(torch.from_numpy(np.concatenate(types).astype(np.int64)))
        return PairedInputs(made, torch.tensor([sample.label for sample in samples], dtype=torch.int64))


class PairedLanguageModeling(Objective[PairedInputs]):
    """Masked language modelling and a class of each sequence, from one pass of the encoder.

    Sums: those of `MaskedLanguageModeling`; and, under the task's name, `NAME/loss` (cross-entropy in nats over sequences) and
    `NAME/accuracy`. The classifier reads the encoder's own output, even where a decoder stands before the vocabulary.

    Args:
        weight: of the second loss; the published sum has 1.
    """

    def __init__(self, masked: Masked, head: Classifier, name: str, weight: float = 1.0) -> None:
        super().__init__()
        # of its own kind of inputs, which are made and read by it alone
        self.masked: Any = masked
        self.pair_head = head
        self.name = name
        self.weights: Mapping[str, float] = {**masked.weights, f"{name}/loss": weight}
        self.prepare = PreparePaired(masked.prepare, masked.encoder.config.embedding.token_types > 1)

    @property
    def encoder(self) -> Encoder:
        return self.masked.encoder

    @property
    def head(self) -> MaskedLm:
        return self.masked.head

    def counts(self, inputs: PairedInputs) -> dict[str, Num[Tensor, ""]]:
        pairs = torch.tensor(len(inputs.labels))
        return {**self.masked.counts(inputs.masked), f"{self.name}/loss": pairs, f"{self.name}/accuracy": pairs}

    def forward(self, inputs: PairedInputs) -> dict[str, Num[Tensor, ""]]:
        encoded = self.masked.encode(inputs.masked)
        logits = self.pair_head(encoded.hidden, encoded.ragged).float()
        return {
            **self.masked.read(encoded, inputs.masked),
            f"{self.name}/loss": F.cross_entropy(logits, inputs.labels, reduction="sum"),
            f"{self.name}/accuracy": (logits.argmax(dim=1) == inputs.labels).sum(),
        }

    def flops(self, inputs: PairedInputs) -> float:
        return self.masked.flops(inputs.masked) + self.pair_head.flops(inputs.masked.batch.ragged)
