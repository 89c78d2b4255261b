"""The terms that a method consists of, for two encoders."""

from __future__ import annotations

from collections.abc import Iterable

from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError
from bothways.objectives.distillation.hidden import LastHidden, LayerHidden
from bothways.objectives.distillation.methods import DistilBert, MiniLm, MiniLmV2, TinyBert
from bothways.objectives.distillation.relations import LastAttention, LastRelations, LayerScores
from bothways.objectives.distillation.term import Term


def build_terms(method: DistilBert | TinyBert | MiniLm | MiniLmV2, student: EncoderConfig, teacher: EncoderConfig) -> list[Term]:
    """What compares their insides; terms of weight 0 are left out.

    Raises:
        InputError: the two cannot be compared by this method.
    """
    if student.filler is not None or teacher.filler is not None:
        raise InputError("an encoder that fills texts up to their full length cannot be compared with another layer by layer")
    return list(_terms(method, student, teacher))


def _terms(method: DistilBert | TinyBert | MiniLm | MiniLmV2, student: EncoderConfig, teacher: EncoderConfig) -> Iterable[Term]:
    match method:
        case DistilBert(cosine=weight):
            if weight:
                yield LastHidden(weight, student, teacher)
        case TinyBert():
            if method.hidden:
                yield LayerHidden(method, student, teacher)
            if method.attention:
                yield LayerScores(method, student, teacher)
        case MiniLm():
            yield LastAttention(method, student, teacher)
        case MiniLmV2():
            yield LastRelations(method, student, teacher)
