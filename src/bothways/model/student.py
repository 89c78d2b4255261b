"""A student: a model of fewer layers that begins as layers of its teacher (DistilBERT, arXiv 1910.01108)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bothways.encoder.config import EncoderConfig
from bothways.encoder.picking import check_layers, picked
from bothways.errors import InputError
from bothways.families import distilbert
from bothways.families.family import Heads, Spec
from bothways.model.model import Model


def student_of(teacher: Model, layers: Sequence[int]) -> Model:
    """A model of the same family, whose layer j begins as the teacher's `layers[j]`; all else is copied whole.

    Kinds of layers stand in the family's own order, so that a ModernBERT's student, too, has global, local, local: a layer keeps
    its weights, and may get another window. `bothways.encoder.picking.spread_layers` chooses layers by the published rule.

    Raises:
        InputError: as `check_layers`; kinds of layers whose weights differ in shape.
    """
    encoder = teacher.spec.encoder
    check_layers(encoder, layers)
    spec = replace(teacher.spec, encoder=replace(encoder, num_layers=len(layers)))
    with torch.device("meta"):
        student = Model(teacher.family, spec, teacher.tokenizer, teacher.settings, teacher.name, teacher.published)
    state, shapes = picked(teacher.state_dict(), layers), student.state_dict()
    for name, tensor in shapes.items():
        if name not in state or state[name].shape != tensor.shape:
            raise InputError(f"layers: {name} of the student has no counterpart in the teacher; choose layers of the same kinds")
    student.load_state_dict({name: state[name] for name in shapes}, assign=True)
    return student.requires_grad_(True)


def distilbert_of(teacher: Model, layers: Sequence[int]) -> Model:
    """A DistilBERT that begins as layers of a BERT; token types, pooler and all heads but the masked-language one are dropped.

    Raises:
        InputError: a teacher of another family; as `check_layers`.
    """
    if teacher.family.name != "bert":
        raise InputError(
            f"{teacher.name or 'this model'} is of the family {teacher.family.name}; a DistilBERT begins as a BERT's layers"
        )
    check_layers(teacher.spec.encoder, layers)
    spec = Spec(
        encoder=_without_types(teacher.spec.encoder, len(layers)),
        heads=Heads(masked_lm=teacher.spec.heads.masked_lm),
        pad_id=teacher.spec.pad_id,
    )
    with torch.device("meta"):
        student = Model(distilbert.FAMILY, spec, teacher.tokenizer, teacher.settings, teacher.name)
    student.load_state_dict(distilbert.student(teacher.state_dict(), tuple(layers)), assign=True)
    return student.requires_grad_(True)


def _without_types(encoder: EncoderConfig, num_layers: int) -> EncoderConfig:
    layer = encoder.layer(0)
    # what attention adds is never dropped in a DistilBERT (see its family)
    own = replace(layer, dropout=0.0, mlp=replace(layer.mlp, out_dropout=layer.dropout))
    return replace(encoder, num_layers=num_layers, layers=(own,), embedding=replace(encoder.embedding, token_types=0))
