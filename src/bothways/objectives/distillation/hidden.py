"""Terms that compare hidden states."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Num
from torch import Tensor, nn

from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError
from bothways.objectives.distillation.methods import TinyBert
from bothways.objectives.distillation.teacher import Reading
from bothways.objectives.distillation.term import Term, matched_layers
from bothways.ragged import Ragged


class LastHidden(Term):
    """1 - cosine of the last hidden states, `cosine` (arXiv 1910.01108).

    Raises:
        InputError: encoders of different width.
    """

    def __init__(self, weight: float, student: EncoderConfig, teacher: EncoderConfig) -> None:
        super().__init__()
        if student.hidden_size != teacher.hidden_size:
            sizes = f"the student's hidden states have {student.hidden_size} features, the teacher's {teacher.hidden_size}"
            raise InputError(f"{sizes}: their cosine cannot be taken; set cosine to 0, or choose tinybert or minilm_v2")
        self.weights = {"cosine": weight}

    def counts(self, ragged: Ragged) -> dict[str, int]:
        return {"cosine": ragged.tokens}

    def forward(self, student: Reading, teacher: Reading) -> dict[str, Num[Tensor, ""]]:
        cosines = F.cosine_similarity(student.encoded.hidden.float(), teacher.encoded.hidden.float(), dim=1)
        return {"cosine": (1 - cosines).sum()}


class LayerHidden(Term):
    """Squared differences of what layers give, the student's through one learned projection, `hidden` (arXiv 1909.10351)."""

    def __init__(self, method: TinyBert, student: EncoderConfig, teacher: EncoderConfig) -> None:
        super().__init__()
        self.layers = matched_layers(student, teacher, method.layers)
        self.projection = nn.Linear(student.hidden_size, teacher.hidden_size)
        self.weights = {"hidden": method.hidden}

    def counts(self, ragged: Ragged) -> dict[str, int]:
        return {"hidden": ragged.tokens}

    def forward(self, student: Reading, teacher: Reading) -> dict[str, Num[Tensor, ""]]:
        ours, theirs = student.encoded.layers, teacher.encoded.layers
        pairs = [(ours[0], theirs[0]), *((ours[i + 1], theirs[number + 1]) for i, number in enumerate(self.layers))]
        gaps = [F.mse_loss(self.projection(own).float(), other.float(), reduction="sum") for own, other in pairs]
        return {"hidden": torch.stack(gaps).sum() / theirs[0].shape[1]}
