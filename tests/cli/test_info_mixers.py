"""`bothways info` of a model without attention."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Run

from bothways.families import m2bert
from bothways.families.family import Spec
from bothways.model.model import Model


def test_info_of_long_convolutions(run: Run, tmp_path: Path) -> None:
    encoder = m2bert.m2bert(vocab_size=50, hidden_size=16, num_layers=2, intermediate_size=24, max_length=32, width=8)
    folder = Model.create(m2bert.FAMILY, Spec(encoder=encoder)).save(tmp_path / "m2")
    facts = json.loads(run("info", folder, "--json", "--strict").out)
    assert (facts["mixers"], facts["heads"], facts["windows"]) == (["monarch"], [None], [None])
    assert facts["parameters"]["total"] == sum(
        parameter.numel() for parameter in Model(m2bert.FAMILY, Spec(encoder)).parameters()
    )
    text = run("info", folder).out
    assert "none: monarch" in text
