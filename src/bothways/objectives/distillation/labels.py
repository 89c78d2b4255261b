"""Distillation on labelled rows: soft labels of a teacher beside the hard ones (arXiv 1503.02531)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from bothways.config import config
from bothways.data.sample import Epochs, Sample
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.layers.heads import Classifier
from bothways.layers.ranges import Positive
from bothways.objectives.classification import LabelledInputs, PrepareLabelled
from bothways.objectives.distillation.methods import Hints, Weight
from bothways.objectives.distillation.teacher import Reading, Teacher, tells_types, typed_for
from bothways.objectives.distillation.term import Term, weighted
from bothways.objectives.distillation.terms import build_terms
from bothways.objectives.objective import Objective
from bothways.ragged import Batch


@config
class SoftLabels:
    """How much a teacher's logits weigh beside the labels, and how they are compared.

    Attributes:
        soft: of the distance from the teacher's logits, the mean over the rows.
        hard: of the labels' own loss.
        compare: "kl" is T² · KL(teacher ‖ student) of softmax(logits / T); "squared" the sum of squared differences of the logits
            themselves (DSE, microsoft/Distilled-Sentence-Embedding), which a regression is always compared by.
        temperature: T.
    """

    soft: Weight = 0.5
    hard: Weight = 0.5
    compare: Literal["kl", "squared"] = "kl"
    temperature: Positive = 2.0


@dataclass(frozen=True, eq=False)
class TaughtInputs:
    """A labelled batch, and the teacher's logits for each of its sequences."""

    labelled: LabelledInputs
    logits: Float[Tensor, "sequences labels"]

    @property
    def batch(self) -> Batch:
        return self.labelled.batch

    @property
    def tokens(self) -> int:
        return self.labelled.tokens

    def to(self, device: torch.device | str) -> TaughtInputs:
        return replace(self, labelled=self.labelled.to(device), logits=self.logits.to(device))


@dataclass(frozen=True, eq=False)
class PrepareTaught:
    """Packs labelled samples, with what the teacher said of each.

    Attributes:
        logits: float32 [rows, labels], of the sample of each number.
    """

    prepare: PrepareLabelled
    logits: np.ndarray

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> TaughtInputs:
        labelled = self.prepare(samples, seed, epoch)
        assert labelled.batch.samples is not None
        return TaughtInputs(labelled, said_of(self.logits, labelled.batch.samples))


def said_of(logits: np.ndarray, samples: Sequence[int]) -> Float[Tensor, "sequences labels"]:
    """What a teacher said of samples of these numbers.

    Raises:
        InputError: a sample that it has not read.
    """
    if (last := max(samples, default=-1)) >= len(logits):
        raise InputError(f"sample {last}: the teacher's logits are of {len(logits)} rows; ask it for all rows, in their order")
    return torch.from_numpy(logits[np.array(samples, dtype=np.int64)])


class LabelledDistillation(Objective[TaughtInputs]):
    """A classifier, or a regression, learns of labels, of a teacher's logits, and, where asked, of the teacher's inside.

    Sums: `soft` and `hard`, those that weigh anything, `accuracy` for classes, and those of `hints`.

    The logits come with the inputs, so the teacher itself is asked for nothing but hints, and may have another tokenizer
    where there are none.

    Raises:
        InputError: hints without a teacher, or that cannot compare these two.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: Classifier,
        logits: np.ndarray,
        soft: SoftLabels,
        regression: bool = False,
        teacher: Teacher | None = None,
        hints: Hints | None = None,
    ) -> None:
        super().__init__()
        if logits.ndim != 2 or logits.shape[1] != head.config.labels:
            raise InputError(f"the teacher's logits are {list(logits.shape)}, the student has {head.config.labels} outputs")
        self.encoder, self.head, self.soft, self.regression, self.teacher = encoder, head, soft, regression, teacher
        terms: list[Term] = []
        if hints is not None:
            if teacher is None:
                raise InputError(f"{hints.type}: comparing insides needs the teacher itself")
            if hints.masked_lm:
                raise InputError(
                    f"{hints.type}.masked_lm: {hints.masked_lm}, but rows with labels have no masked tokens; set it to 0"
                )
            terms = build_terms(hints, encoder.config, teacher.encoder.config)
        self.terms = nn.ModuleList(terms)
        weights = weighted(soft=soft.soft, hard=soft.hard) | {name: w for term in terms for name, w in term.weights.items()}
        if not weights:
            raise InputError("SoftLabels: all weights are 0, so that nothing is learned")
        self.weights: Mapping[str, float] = weights
        readers = [encoder, *([teacher.encoder] if terms and teacher else [])]
        self.prepare = PrepareTaught(PrepareLabelled(regression, any(map(tells_types, readers))), logits)

    def counts(self, inputs: TaughtInputs) -> dict[str, Num[Tensor, ""]]:
        rows = len(inputs.labelled.labels)
        counts = {name: rows for name in ("soft", "hard") if name in self.weights}
        if not self.regression:
            counts["accuracy"] = rows
        for term in self._terms:
            counts |= term.counts(inputs.batch.ragged)
        return {name: torch.tensor(number) for name, number in counts.items()}

    def forward(self, inputs: TaughtInputs) -> dict[str, Num[Tensor, ""]]:
        batch, labels = self.head.marked(inputs.batch), inputs.labelled.labels
        encoded = self.encoder(typed_for(self.encoder, batch), keep=len(self.terms) > 0)
        logits = self.head(encoded.hidden, encoded.ragged).float()
        sums: dict[str, Tensor] = {}
        if "soft" in self.weights:
            sums["soft"] = logits_apart(self.soft, logits, inputs.logits, self.regression)
        if "hard" in self.weights:
            sums["hard"] = label_loss(logits, labels, self.regression)
        if not self.regression:
            sums["accuracy"] = (logits.argmax(dim=1) == labels).sum()
        if self.terms:
            assert self.teacher is not None
            ours, theirs = Reading(self.encoder, encoded), self.teacher.read(typed_for(self.teacher.encoder, batch))
            for term in self._terms:
                sums |= term(ours, theirs)
        return sums

    @property
    def _terms(self) -> list[Term]:
        return [cast("Term", term) for term in self.terms]

    def flops(self, inputs: TaughtInputs) -> float:
        """Of the student; a third of the teacher's where it is asked, since it takes no backward pass. Relations are left out."""
        batch = self.head.marked(inputs.batch)
        own = self.encoder.flops(batch.ragged, batch.global_counts) + self.head.flops(batch.ragged)
        return own + (self.teacher.encoder.flops(batch.ragged) / 3 if self.terms and self.teacher else 0.0)


def label_loss(logits: Float[Tensor, "rows labels"], labels: Num[Tensor, " rows"], regression: bool) -> Float[Tensor, ""]:
    """Cross-entropy in nats, or squared errors, summed over the rows."""
    if regression:
        return F.mse_loss(logits[:, 0], labels, reduction="sum")
    return F.cross_entropy(logits, labels, reduction="sum")


def logits_apart(
    soft: SoftLabels, logits: Float[Tensor, "rows labels"], taught: Float[Tensor, "rows labels"], regression: bool = False
) -> Float[Tensor, ""]:
    """How far the student's logits lie from the teacher's, summed over the rows.

    The mean over the rows is that of a whole loss each. (TinyBERT's released code takes the mean over the classes as well, which
    makes it so many times smaller.)
    """
    if regression or soft.compare == "squared":
        return F.mse_loss(logits, taught, reduction="sum")
    t = soft.temperature
    apart = F.kl_div((logits / t).log_softmax(dim=1), (taught / t).log_softmax(dim=1), reduction="sum", log_target=True)
    return apart * t**2
