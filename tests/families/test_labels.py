"""How many classes a classifier has, where a config says it twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import references
from tests.parity.test_parity import TOLERANCE, batch_of, run, texts, worst
from tests.references import CASES, Case

import bothways
from bothways.errors import InputError
from bothways.families.family import Heads
from bothways.model.model import Model

PLACEHOLDERS = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
CLASSIFIERS = [case for case in CASES if str(case).endswith("-classifier")]


def case_of(name: str) -> Case:
    return next(case for case in CASES if str(case) == name)


def changed(case: Case, folder: Path, **keys: Any) -> Path:
    """A folder of theirs, of three classes, with other keys in its config."""
    references.save(references.build(case), folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))
    return folder


@pytest.mark.parametrize("case", CLASSIFIERS, ids=str)
def test_two_placeholders_give_way_to_a_number(case: Case, tmp_path: Path) -> None:
    """As versions 2 and 3 wrote them, whatever `num_labels` was; `transformers` reads the same."""
    folder = changed(case, tmp_path / "theirs", num_labels=3, **PLACEHOLDERS)
    model = bothways.load(folder)
    saved = model.save(tmp_path / "ours")
    config = json.loads((saved / "config.json").read_text())
    assert "num_labels" not in config
    assert list(config["id2label"].values()) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    with torch.no_grad():
        for one in (folder, saved):
            assert (
                worst(run(model, batch_of(case)), references.run(case, references.reload(case, one), *texts(case))) <= TOLERANCE
            )


def test_names_that_were_given_stand(tmp_path: Path) -> None:
    case = case_of("bert-classifier")
    names = {"id2label": {"0": "bad", "1": "fair", "2": "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
    folder = changed(case, tmp_path / "theirs", num_labels=5, **names)
    model = bothways.load(folder)
    assert model.spec.labels == ("bad", "fair", "good")
    saved = model.save(tmp_path / "ours")
    with torch.no_grad():  # which does not read the published folder: five classes, it says
        expected = references.run(case, references.reload(case, saved), *texts(case))
        assert worst(run(model, batch_of(case)), expected) <= TOLERANCE
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="classifier"):
        bothways.load(changed(case, folder, num_labels=5, **{**names, "id2label": {"0": "bad", "1": "good"}}))


def test_a_new_classifier_is_not_counted_by_the_old_config(tmp_path: Path) -> None:
    """A classifier of other classes on an encoder whose config came with `num_labels`."""
    case = case_of("bert-classifier")
    old = bothways.load(changed(case, tmp_path / "theirs", num_labels=3, **PLACEHOLDERS))
    assert old.spec.heads.classifier is not None
    spec = replace(old.spec, heads=Heads(classifier=replace(old.spec.heads.classifier, labels=5)), labels=())
    model = Model(old.family, spec, published=old.published)
    model.encoder.load_state_dict(old.encoder.state_dict())
    saved = model.eval().save(tmp_path / "ours")
    assert bothways.load(saved).spec.heads.classifier == spec.heads.classifier
    theirs: Any = references.reload(case, saved)
    assert theirs.config.num_labels == 5
