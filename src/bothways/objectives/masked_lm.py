"""Masked language modelling (arXiv 1810.04805): predict the tokens that were hidden.

The vocabulary projection is computed for the predicted rows alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Int, Num
from torch import Tensor

from bothways.data.masking import Masking, check_masking, mask_tokens
from bothways.data.sample import Epochs, Sample
from bothways.data.vocabulary import Vocabulary
from bothways.encoder.encoder import Encoder
from bothways.layers.heads import MaskedLm
from bothways.objectives.objective import Objective
from bothways.ragged import Batch, Capacity, Encoded


@dataclass(frozen=True, eq=False)
class MaskedInputs:
    """A corrupted batch, the rows to predict (ascending) and the tokens that stood there.

    Attributes:
        hidden: how many predicted rows show the mask token; the rest show a token, maybe the right one.
    """

    batch: Batch
    rows: Int[Tensor, " predicted"]
    labels: Int[Tensor, " predicted"]
    hidden: int

    @property
    def tokens(self) -> int:
        return self.batch.tokens

    @property
    def filler(self) -> int:
        return self.batch.ragged.filler

    def to_capacity(self, capacity: Capacity) -> MaskedInputs:
        return replace(self, batch=self.batch.to_capacity(capacity))

    def with_types(self, types: Int[Tensor, " tokens"]) -> MaskedInputs:
        return replace(self, batch=replace(self.batch, types=types))

    def to(self, device: torch.device | str) -> MaskedInputs:
        return replace(self, batch=self.batch.to(device), rows=self.rows.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class PrepareMasked:
    """Packs samples and masks them, each by (seed, epoch, its number).

    Raises:
        InputError: masking has to know of the vocabulary what is not known.
    """

    masking: Masking
    vocabulary: Vocabulary

    def __post_init__(self) -> None:
        check_masking(self.masking, self.vocabulary)

    def within(self, tokens: int) -> PrepareMasked:
        """As `Masking.within`."""
        return replace(self, masking=self.masking.within(tokens))

    def behind(self, tokens: int) -> PrepareMasked:
        """With the mask rate of an input that has so many tokens of its stream before it."""
        return self if self.masking.schedule is None else replace(self, masking=self.masking.behind(tokens))

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> MaskedInputs:
        batch = Batch.of([sample.sequences[0] for sample in samples], samples=[sample.id for sample in samples])
        masked = mask_tokens(
            self.masking,
            self.vocabulary,
            batch.ids.numpy(),
            np.array(batch.ragged.lengths, dtype=np.int64),
            np.array(batch.samples, dtype=np.int64),
            seed,
            epoch,
        )
        return MaskedInputs(
            batch=batch.with_ids(torch.from_numpy(masked.ids)),
            rows=torch.from_numpy(masked.positions),
            labels=torch.from_numpy(masked.labels),
            hidden=int((masked.ids[masked.positions] == self.vocabulary.mask_id).sum()),
        )


class MaskedLanguageModeling(Objective[MaskedInputs]):
    """Cross-entropy in nats over the masked tokens; accuracy beside it.

    Sums: `loss` and `accuracy` over predicted tokens, `masked` (predicted tokens of all tokens),
    `mask_token` (of the predicted, those that show the mask token).
    """

    weights: Mapping[str, float] = MappingProxyType({"loss": 1.0})
    takes_filler = True

    def __init__(self, encoder: Encoder, head: MaskedLm, masking: Masking, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.prepare = PrepareMasked(masking, vocabulary)

    def counts(self, inputs: MaskedInputs) -> dict[str, Num[Tensor, ""]]:
        predicted, tokens = torch.tensor(len(inputs.labels)), torch.tensor(inputs.tokens)
        return {"loss": predicted, "accuracy": predicted, "masked": tokens, "mask_token": predicted}

    def forward(self, inputs: MaskedInputs) -> dict[str, Num[Tensor, ""]]:
        return self.read(self.encode(inputs), inputs)

    def encode(self, inputs: MaskedInputs) -> Encoded:
        """The encoder's pass, which another objective may read as well."""
        return self.encoder(inputs.batch)

    def read(self, encoded: Encoded, inputs: MaskedInputs) -> dict[str, Num[Tensor, ""]]:
        """The sums, of a batch that has been encoded."""
        loss, right = self.head.loss(encoded.hidden[inputs.rows], self.encoder.embedding.tokens.weight, inputs.labels)
        return {
            "loss": loss,
            "accuracy": right,
            "masked": torch.tensor(len(inputs.labels)),
            "mask_token": torch.tensor(inputs.hidden),
        }

    def flops(self, inputs: MaskedInputs) -> float:
        head = self.head.flops(len(inputs.labels), self.encoder.embedding.tokens.weight)
        return self.encoder.flops(inputs.batch.ragged) + head
