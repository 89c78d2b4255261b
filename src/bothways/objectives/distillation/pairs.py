"""Two encodings learn what a cross-encoder says of a pair: Distilled Sentence Embedding.

microsoft/Distilled-Sentence-Embedding at 7e3e87b. The student never sees the two texts together, so that a text is encoded
once, whatever it is compared with, and only the head runs for each pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from pydantic import PositiveInt
from torch import Tensor, nn

from bothways.config import config
from bothways.data.sample import Epochs, Sample
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.objectives.distillation.labels import SoftLabels, label_loss, logits_apart, said_of
from bothways.objectives.distillation.term import weighted
from bothways.objectives.objective import Objective
from bothways.ops.segment import segment_mean
from bothways.ragged import Batch, Encoded, Ragged

# The released weights of the two losses
HALF_AND_HALF = SoftLabels(soft=0.5, hard=0.5, compare="squared")


@config
class PairHead:
    """From two vectors u and v to logits: [u; v; u·v; |u - v|], one hidden layer, relu.

    Attributes:
        labels: outputs; one for a score, and for two classes, of which it is the log odds of the second.
        layers: how many of the last layers' outputs make up a text's vector, side by side.
        hidden: width of the hidden layer.
    """

    labels: PositiveInt
    layers: PositiveInt = 4
    hidden: PositiveInt = 512


class PairClassifier(nn.Module):
    """Vectors of single texts, and logits of pairs of them. The order of a pair matters."""

    def __init__(self, config: PairHead, encoder: Encoder) -> None:
        super().__init__()
        if config.layers > encoder.config.num_layers:
            raise InputError(f"PairHead.layers: {config.layers}, but the encoder has {encoder.config.num_layers}")
        self.config = config
        self.hidden = nn.Linear(4 * config.layers * encoder.config.hidden_size, config.hidden)
        self.out = nn.Linear(config.hidden, config.labels)

    def vectors(self, encoded: Encoded) -> Float[Tensor, "sequences size"]:
        """The mean over a text's tokens but the first, of the last layers side by side; zeros where there is no other.

        `encoded` is what the encoder gave with `keep=True`. The last layer is what the encoder gives, with its last norm.
        """
        rows = encoded.ragged.positions > 0
        ragged = Ragged.of([max(length - 1, 0) for length in encoded.ragged.lengths]).to(rows.device)
        last = torch.cat((*encoded.layers[1:-1], encoded.hidden)[-self.config.layers :], dim=1)
        return segment_mean(last[rows], ragged)

    def forward(self, u: Float[Tensor, "pairs size"], v: Float[Tensor, "pairs size"]) -> Float[Tensor, "pairs labels"]:
        both = torch.cat((u, v, u * v, (u - v).abs()), dim=1)
        return self.out(self.hidden(both).relu())


@dataclass(frozen=True, eq=False)
class PairInputs:
    """First and second texts in one batch, by length; their labels, and the teacher's logits for each pair.

    Attributes:
        place: int64 [2 · pairs], the sequence of the batch that holds each first text, then each second.
    """

    batch: Batch
    place: Int[Tensor, " sequences"]
    labels: Num[Tensor, " pairs"]
    logits: Float[Tensor, "pairs labels"]

    @property
    def tokens(self) -> int:
        return self.batch.ragged.tokens

    def to(self, device: torch.device | str) -> PairInputs:
        moved = {name: getattr(self, name).to(device) for name in ("batch", "place", "labels", "logits")}
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class PreparePairs:
    """Packs samples of two sequences.

    Attributes:
        logits: float32 [rows, labels], of the sample of each number.

    Raises:
        InputError: a sample that is no pair of two sequences, or that the teacher has not read.
    """

    logits: np.ndarray
    regression: bool

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> PairInputs:
        for sample in samples:
            if len(sample.sequences) != 2:
                raise InputError(f"sample {sample.id} has {len(sample.sequences)} texts of its own; a pair has two")
        texts = [sample.sequences[side] for side in (0, 1) for sample in samples]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        place = torch.empty(len(order), dtype=torch.int64)
        place[torch.tensor(order)] = torch.arange(len(order))
        dtype = torch.float32 if self.regression else torch.int64
        labels = torch.tensor([sample.label for sample in samples], dtype=dtype)
        return PairInputs(Batch.of([texts[i] for i in order]), place, labels, said_of(self.logits, [one.id for one in samples]))


class PairDistillation(Objective[PairInputs]):
    """`hard`, the labels' loss, and `soft`, squared differences from a cross-encoder's logits, half each; `accuracy` for classes.

    Two classes become one output, the log odds: the teacher's logits are then the second less the first.

    Args:
        logits: float32 [rows, labels] of a cross-encoder, in the order of the rows.

    Raises:
        InputError: as many outputs as the teacher's logits have are expected.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: PairClassifier,
        logits: np.ndarray,
        soft: SoftLabels = HALF_AND_HALF,
        regression: bool = False,
    ) -> None:
        super().__init__()
        self.binary = not regression and logits.shape[1] == 2 and head.config.labels == 1
        if self.binary:
            logits = logits[:, 1:] - logits[:, :1]
        if logits.shape[1] != head.config.labels or (head.config.labels == 1 and not (self.binary or regression)):
            raise InputError(f"the teacher's logits are {list(logits.shape)}, the student has {head.config.labels} outputs")
        if self.binary and soft.compare == "kl":
            raise InputError("SoftLabels.compare: log odds are one number; compare them as squared")
        self.encoder, self.head, self.soft, self.regression = encoder, head, soft, regression
        self.weights: Mapping[str, float] = weighted(soft=soft.soft, hard=soft.hard)
        if not self.weights:
            raise InputError("SoftLabels: all weights are 0, so that nothing is learned")
        self.prepare = PreparePairs(np.ascontiguousarray(logits, dtype=np.float32), regression)

    def counts(self, inputs: PairInputs) -> dict[str, Num[Tensor, ""]]:
        names = (*self.weights, *(() if self.regression else ("accuracy",)))
        return dict.fromkeys(names, torch.tensor(len(inputs.labels)))

    def forward(self, inputs: PairInputs) -> dict[str, Num[Tensor, ""]]:
        u, v = self.head.vectors(self.encoder(inputs.batch, keep=True))[inputs.place].chunk(2)
        logits = self.head(u, v).float()
        sums: dict[str, Tensor] = {}
        if "soft" in self.weights:
            sums["soft"] = logits_apart(self.soft, logits, inputs.logits, self.regression)
        if "hard" in self.weights:
            sums["hard"] = self._hard(logits, inputs.labels)
        if not self.regression:
            guessed = (logits[:, 0] > 0).long() if self.binary else logits.argmax(dim=1)
            sums["accuracy"] = (guessed == inputs.labels).sum()
        return sums

    def _hard(self, logits: Tensor, labels: Tensor) -> Float[Tensor, ""]:
        if self.binary:
            return F.binary_cross_entropy_with_logits(logits[:, 0], labels.float(), reduction="sum")
        return label_loss(logits, labels, self.regression)

    def flops(self, inputs: PairInputs) -> float:
        head = sum(linear.weight.numel() for linear in (self.head.hidden, self.head.out))
        return self.encoder.flops(inputs.batch.ragged) + 2.0 * len(inputs.labels) * head
