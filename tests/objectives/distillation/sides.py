"""Teachers and students of the tests."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

from tests.builders import CONFIGS, VOCAB, random_ids, randomise

from bothways.data.masking import Masking, Vocabulary
from bothways.data.sample import Sample
from bothways.families import FAMILIES
from bothways.families.family import Heads, Spec
from bothways.layers.heads import MaskedLm, MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm
from bothways.model.model import Model
from bothways.objectives.distillation.masked_lm import MaskedDistillation
from bothways.objectives.distillation.methods import DistilBert, MiniLm, MiniLmV2, TinyBert
from bothways.objectives.distillation.teacher import Teacher

MASKING = Masking(rate=0.3)
VOCABULARY = Vocabulary(VOCAB, 4, frozenset(range(5)))
DISTILBERT = DistilBert()
HEAD = MaskedLmHead(transform=Transform(norm=LayerNorm()))


def model(name: str, layers: int, seed: int = 0, head: bool = True) -> Model:
    family = next(one for one in FAMILIES if one.name == name)
    encoder = replace(CONFIGS[name], num_layers=layers)
    made = Model(family, Spec(encoder=encoder, heads=Heads(masked_lm=HEAD if head else None)), name=f"a {name}")
    randomise(made, seed)
    return made.eval()


def distillation(
    student: Model, teacher: Model, method: DistilBert | TinyBert | MiniLm | MiniLmV2 = DISTILBERT, seed: int = 5
) -> MaskedDistillation:
    head = student.heads["masked_lm"]
    assert isinstance(head, MaskedLm)
    task = MaskedDistillation(student.encoder, head, Teacher(teacher), method, MASKING, VOCABULARY)
    randomise(task.terms, seed)
    return task.eval()


def itself(name: str, method: DistilBert | TinyBert | MiniLm | MiniLmV2 = DISTILBERT) -> MaskedDistillation:
    """A student that is its teacher."""
    student = model(name, 2)
    return distillation(student, deepcopy(student), method)


def samples(lengths: list[int]) -> list[Sample]:
    return [Sample(id=i, sequences=(ids.astype("int32"),)) for i, ids in enumerate(random_ids(lengths))]
