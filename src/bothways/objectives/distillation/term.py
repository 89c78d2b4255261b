"""A term of a distillation loss: it compares the insides of two encoders on the same packed tokens; no pad is among them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from jaxtyping import Num
from torch import Tensor, nn

from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError
from bothways.objectives.distillation.teacher import Reading
from bothways.ragged import Ragged


class Term(nn.Module, ABC):
    """Some sums of a distillation loss.

    Attributes:
        weights: of each sum.
    """

    weights: Mapping[str, float]

    @abstractmethod
    def counts(self, ragged: Ragged) -> dict[str, int]:
        """The denominator of each sum."""

    @abstractmethod
    def forward(self, student: Reading, teacher: Reading) -> dict[str, Num[Tensor, ""]]:
        """The sums."""


def weighted(**weights: float) -> dict[str, float]:
    """The weights that are not 0: what weighs nothing is not computed."""
    return {name: weight for name, weight in weights.items() if weight}


def matched_layers(student: EncoderConfig, teacher: EncoderConfig, layers: Sequence[int] | None) -> tuple[int, ...]:
    """The teacher's layer for each of the student's: every N/M-th, rounded, and the last for the last (arXiv 1909.10351).

    Raises:
        InputError: other than one layer for each of the student's, or a number that is no layer of the teacher.
    """
    if layers is None:
        ratio = teacher.num_layers / student.num_layers
        return tuple(max(round((i + 1) * ratio) - 1, 0) for i in range(student.num_layers))
    if len(layers) != student.num_layers or not all(number < teacher.num_layers for number in layers):
        given = ", ".join(map(str, layers))
        needed = f"{student.num_layers} numbers are needed, each below {teacher.num_layers}"
        raise InputError(f"layers: {given}; {needed}, which are layers of the teacher")
    return tuple(layers)
