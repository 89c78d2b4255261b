"""Distillation on text without labels: teacher and student read the same masked tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from jaxtyping import Num
from torch import Tensor, nn

from bothways.data.masking import Masking, Vocabulary
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.layers.heads import MaskedLm
from bothways.objectives.distillation.methods import DistilBert, Method
from bothways.objectives.distillation.teacher import Reading, Teacher, projected
from bothways.objectives.distillation.term import Term, weighted
from bothways.objectives.distillation.terms import build_terms
from bothways.objectives.masked_lm import MaskedInputs, PrepareMasked
from bothways.objectives.objective import Objective
from bothways.ops.kl_divergence import linear_kl_divergence


class MaskedDistillation(Objective[MaskedInputs]):
    """A student learns of a teacher's predictions, or of its inside, and, where it weighs anything, of the masked tokens.

    Sums: `kl` over all tokens or the masked ones, `masked_lm` and `accuracy` over the masked tokens, `cosine`, `hidden` and
    `attention` as `methods` says; those that the method has.

    Attributes:
        terms: what compares the insides of the two; a learned projection among them is not part of the student.

    Raises:
        InputError: the method cannot compare these two, nothing in it weighs anything, or it needs a masked-language head that
            the teacher lacks.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: MaskedLm,
        teacher: Teacher,
        method: Method,
        masking: Masking,
        vocabulary: Vocabulary,
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.teacher, self.method = encoder, head, teacher, method
        self.terms = nn.ModuleList(build_terms(method, encoder.config, teacher.encoder.config))
        own = weighted(kl=method.kl if isinstance(method, DistilBert) else 0.0, masked_lm=method.masked_lm)
        self.weights: Mapping[str, float] = {**own, **{name: w for term in self._terms for name, w in term.weights.items()}}
        if not self.weights:
            raise InputError(f"{method.type}: all weights are 0, so that nothing is learned from the teacher")
        if "kl" in self.weights:
            _ = teacher.masked_lm  # refuses a teacher without one
        self.prepare = PrepareMasked(masking, vocabulary)

    @property
    def _terms(self) -> list[Term]:
        return [cast("Term", term) for term in self.terms]

    def counts(self, inputs: MaskedInputs) -> dict[str, Num[Tensor, ""]]:
        predicted, ragged = len(inputs.labels), inputs.batch.ragged
        counts = {name: number for term in self._terms for name, number in term.counts(ragged).items()}
        if "kl" in self.weights:
            counts["kl"] = predicted if self._masked_only else ragged.tokens
        if "masked_lm" in self.weights:
            counts |= {"masked_lm": predicted, "accuracy": predicted}
        return {name: torch.tensor(number) for name, number in counts.items()}

    def forward(self, inputs: MaskedInputs) -> dict[str, Num[Tensor, ""]]:
        theirs = self.teacher.read(inputs.batch)
        ours = Reading(self.encoder, self.encoder(inputs.batch, keep=len(self.terms) > 0))
        sums: dict[str, Tensor] = {}
        for term in self._terms:
            sums |= term(ours, theirs)
        hidden = ours.encoded.hidden
        if "kl" in self.weights:
            assert isinstance(self.method, DistilBert)
            rows = inputs.rows if self._masked_only else None
            student = projected(self.head, hidden if rows is None else hidden[rows], self.encoder)
            sums["kl"] = linear_kl_divergence(student, self.teacher.predictions(theirs, rows), self.method.temperature)
        if "masked_lm" in self.weights:
            table = self.encoder.embedding.tokens.weight
            sums["masked_lm"], sums["accuracy"] = self.head.loss(hidden[inputs.rows], table, inputs.labels)
        return sums

    @property
    def _masked_only(self) -> bool:
        return isinstance(self.method, DistilBert) and self.method.masked_only

    def flops(self, inputs: MaskedInputs) -> float:
        """Of the student; a third of the teacher's, which takes no backward pass. Relations are left out."""
        ragged, table = inputs.batch.ragged, self.encoder.embedding.tokens.weight
        rows = {"kl": len(inputs.labels) if self._masked_only else ragged.tokens, "masked_lm": len(inputs.labels)}
        own = self.encoder.flops(ragged) + sum(self.head.flops(rows[name], table) for name in rows.keys() & self.weights.keys())
        theirs = self.teacher.encoder.flops(ragged)
        if "kl" in self.weights:
            theirs += self.teacher.masked_lm.flops(rows["kl"], self.teacher.encoder.embedding.tokens.weight)
        return own + theirs / 3
