"""A class, or one number, for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Num
from torch import Tensor

from bothways.data.sample import Epochs, Sample
from bothways.encoder.encoder import Encoder
from bothways.layers.heads import Classifier
from bothways.objectives.objective import Objective
from bothways.ragged import Batch


@dataclass(frozen=True, eq=False)
class LabelledInputs:
    """A batch and its labels: int64 classes, or float32 scores, [sequences]."""

    batch: Batch
    labels: Num[Tensor, " sequences"]

    @property
    def tokens(self) -> int:
        return self.batch.ragged.tokens

    def to(self, device: torch.device | str) -> LabelledInputs:
        return replace(self, batch=self.batch.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class PrepareLabelled:
    """Packs labelled samples, shortest first, so that equal lengths lie together.

    Attributes:
        typed: whether the encoder has token types to tell the texts of a pair apart.
    """

    regression: bool
    typed: bool

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> LabelledInputs:
        ordered = sorted(samples, key=lambda sample: len(sample.sequences[0]))
        types = [sample.types[0] for sample in ordered if sample.types is not None] if self.typed else []
        batch = Batch.of([sample.sequences[0] for sample in ordered], types or None, [sample.id for sample in ordered])
        dtype = torch.float32 if self.regression else torch.int64
        return LabelledInputs(batch, torch.tensor([sample.label for sample in ordered], dtype=dtype))


class SequenceClassification(Objective[LabelledInputs]):
    """Cross-entropy in nats over classes, or squared error for regression, where there is one output.

    Sums: `loss`, and `accuracy` for classes.
    """

    weights: Mapping[str, float] = MappingProxyType({"loss": 1.0})

    def __init__(self, encoder: Encoder, head: Classifier, regression: bool = False) -> None:
        super().__init__()
        if regression and head.config.labels != 1:
            raise ValueError(f"regression has one output, the head has {head.config.labels}")
        self.encoder = encoder
        self.head = head
        self.regression = regression
        self.prepare = PrepareLabelled(regression, encoder.config.embedding.token_types > 1)

    def counts(self, inputs: LabelledInputs) -> dict[str, Num[Tensor, ""]]:
        sequences = torch.tensor(len(inputs.labels))
        return {"loss": sequences} if self.regression else {"loss": sequences, "accuracy": sequences}

    def forward(self, inputs: LabelledInputs) -> dict[str, Num[Tensor, ""]]:
        encoded = self.encoder(self.head.marked(inputs.batch))
        logits = self.head(encoded.hidden, encoded.ragged).float()
        if self.regression:
            return {"loss": F.mse_loss(logits[:, 0], inputs.labels, reduction="sum")}
        loss = F.cross_entropy(logits, inputs.labels, reduction="sum")
        return {"loss": loss, "accuracy": (logits.argmax(dim=1) == inputs.labels).sum()}

    def flops(self, inputs: LabelledInputs) -> float:
        batch = self.head.marked(inputs.batch)
        return self.encoder.flops(batch.ragged, batch.global_counts) + self.head.flops(batch.ragged)
