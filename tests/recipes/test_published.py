"""What a published run's size changes, and that a model keeps what its fresh weights were drawn from."""

from __future__ import annotations

from pathlib import Path

import pytest

import bothways
from bothways.data.source import TextFiles
from bothways.families import FAMILIES
from bothways.families.family import Heads, Spec
from bothways.model.model import Model
from bothways.recipes.published import RECIPES
from bothways.training.schedule import Steps

SOURCE = TextFiles(paths=("texts",))


@pytest.mark.parametrize("name", RECIPES)
def test_weights_of_a_narrow_network_are_drawn_larger(name: str) -> None:
    base, tiny = (RECIPES[name](SOURCE, Steps(count=1), size).encoder for size in ("base", "tiny"))
    assert base.initialisation.spread == 0.02
    # sums of hidden_size terms have the same variance: 768 * 0.02^2 = 128 * 0.04899^2
    assert tiny.initialisation.spread == pytest.approx(0.04898979)


@pytest.mark.parametrize("name", RECIPES)
def test_a_saved_model_keeps_its_initialisation(name: str, tmp_path: Path) -> None:
    run = RECIPES[name](SOURCE, Steps(count=1), "tiny")
    family = next(one for one in FAMILIES if one.name == run.family)
    spec = Spec(encoder=run.encoder, heads=Heads(masked_lm=run.head), pad_id=int(name == "roberta"))
    folder = Model.create(family, spec, None, seed=0).save(tmp_path / "model")
    assert bothways.load(folder, strict=True).spec.encoder == run.encoder
