"""A fresh classifier for a model of any family: one that its folder can hold, or a refusal before anything is trained."""

from __future__ import annotations

import pytest
import torch
from scripts.tables import BASES

from bothways.errors import InputError
from bothways.families import BY_NAME
from bothways.families.family import Family, Heads, Spec
from bothways.layers.position import Learned
from bothways.model.folder import check_expressed
from bothways.model.model import Model
from bothways.recipes.finetuning import _classifier

DECODERS = {"llama", "mistral", "qwen2", "qwen3"}


def model(family: Family, heads: Heads | None = None) -> Model:
    encoder = BASES.get(family.name, BASES["m2_bert"])
    position = encoder.embedding.position
    offset = position.offset if isinstance(position, Learned) else 0
    with torch.device("meta"):
        return Model(family, Spec(encoder=encoder, heads=heads or Heads(), pad_id=max(offset - 1, 0)), name="mine")


@pytest.mark.parametrize("family", BY_NAME.values(), ids=lambda family: family.name)
def test_a_fresh_classifier_can_be_saved_or_is_refused(family: Family) -> None:
    if family.name in DECODERS:
        with pytest.raises(InputError, match=f"^mine is of the family '{family.name}', whose folders hold no classifier"):
            _classifier(model(family), 3)
        return
    head = _classifier(model(family), 3)
    assert head.labels == 3
    check_expressed(model(family, Heads(classifier=head)))
