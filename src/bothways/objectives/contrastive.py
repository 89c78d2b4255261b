"""Contrastive learning of sentence vectors: a text lies nearer to its partner than to any other.

InfoNCE (arXiv 1807.03748) with the other partners of the batch, and any hard negatives given, as
negatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from pydantic import Field
from torch import Tensor, nn

from bothways.config import config
from bothways.data.sample import Epochs, Sample
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.layers.heads import Pooling, pool
from bothways.objectives.objective import Objective
from bothways.ops.similarity import cosine
from bothways.ragged import Batch


@config
class InfoNce:
    """How vectors are compared.

    Attributes:
        temperature: cosines are divided by it.
        symmetric: partners look for their text as well, and the two losses are averaged.
    """

    temperature: Annotated[float, Field(gt=0)] = 0.05
    symmetric: bool = False


@dataclass(frozen=True, eq=False)
class ContrastiveInputs:
    """Texts, partners and hard negatives in one batch, by length.

    Attributes:
        place: int64 [texts + partners + negatives], the sequence of the batch that holds each.
        pairs: number of texts, which is that of partners.
    """

    batch: Batch
    place: Int[Tensor, " sequences"]
    pairs: int

    @property
    def tokens(self) -> int:
        return self.batch.ragged.tokens

    def to(self, device: torch.device | str) -> ContrastiveInputs:
        return replace(self, batch=self.batch.to(device), place=self.place.to(device))


@dataclass(frozen=True)
class PrepareContrastive:
    """Packs the sequences of all samples: first texts, then partners, then negatives.

    Raises:
        InputError: a text without a partner.
    """

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> ContrastiveInputs:
        for sample in samples:
            if len(sample.sequences) < 2:
                raise InputError(f"sample {sample.id} is a text without a partner: contrastive learning needs pairs")
        most = max(len(sample.sequences) for sample in samples)
        sequences = [sample.sequences[i] for i in range(most) for sample in samples if i < len(sample.sequences)]
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        place = torch.empty(len(order), dtype=torch.int64)
        place[torch.tensor(order)] = torch.arange(len(order))
        return ContrastiveInputs(Batch.of([sequences[i] for i in order]), place, len(samples))


@dataclass(frozen=True)
class PrepareViews:
    """Packs every text twice, as a text and its partner: dropout alone tells the two apart (SimCSE, arXiv 2104.08821)."""

    pairs: PrepareContrastive

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> ContrastiveInputs:
        return self.pairs([replace(one, sequences=(one.sequences[0],) * 2) for one in samples], seed, epoch)


class Contrastive(Objective[ContrastiveInputs]):
    """InfoNCE over pooled vectors. Sums: `loss` in nats, and `accuracy` (the partner is the nearest).

    With `views`, a sample is a single text, and its partner is the same text under another dropout.

    Raises:
        InputError: views, and an encoder without dropout, whose two passes would be one.
    """

    weights: Mapping[str, float] = MappingProxyType({"loss": 1.0})
    whole_batch = True

    def __init__(self, encoder: Encoder, pooling: Pooling, loss: InfoNce, views: bool = False) -> None:
        super().__init__()
        if views and not _drops(encoder):
            raise InputError(
                "views: this encoder has no dropout, so that a text would be its own partner; give pairs, or dropout"
            )
        self.encoder = encoder
        self.pooling: Pooling = pooling
        self.loss = loss
        self.prepare = PrepareViews(PrepareContrastive()) if views else PrepareContrastive()

    def counts(self, inputs: ContrastiveInputs) -> dict[str, Num[Tensor, ""]]:
        return {"loss": torch.tensor(inputs.pairs), "accuracy": torch.tensor(inputs.pairs)}

    def forward(self, inputs: ContrastiveInputs) -> dict[str, Num[Tensor, ""]]:
        encoded = self.encoder(inputs.batch)
        vectors = pool(self.pooling, encoded.hidden, encoded.ragged)[inputs.place].float()
        scores = cosine(vectors[: inputs.pairs], vectors[inputs.pairs :]) / self.loss.temperature
        target = torch.arange(inputs.pairs, device=scores.device)
        return {"loss": self._loss(scores, target), "accuracy": (scores.argmax(dim=1) == target).sum()}

    def _loss(self, scores: Float[Tensor, "texts candidates"], target: Int[Tensor, " texts"]) -> Float[Tensor, ""]:
        forward = F.cross_entropy(scores, target, reduction="sum")
        if not self.loss.symmetric:
            return forward
        backward = F.cross_entropy(scores[:, : len(target)].T, target, reduction="sum")
        return (forward + backward) / 2

    def flops(self, inputs: ContrastiveInputs) -> float:
        return self.encoder.flops(inputs.batch.ragged)


def _drops(encoder: Encoder) -> bool:
    return any(isinstance(part, nn.Dropout) and part.p > 0 for part in encoder.modules()) or any(
        mixer.dropout > 0 for mixer in encoder.config.attentions
    )
