"""`ladder`: its rungs, trained and side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.test_training import write_texts

RUNGS = ["bert", "alibi", "glu", "low-precision-norm", "masked-30"]


@pytest.mark.slow
def test_a_ladder(run: Run, tmp_path: Path) -> None:
    """Listed, then trained for two steps each, with a page; the settings that differ are those of the rungs."""
    texts, out = write_texts(tmp_path / "texts"), tmp_path / "out"
    command = ("ladder", "mosaicbert", texts, "--size", "toy", "--steps", 2, "--out", out)
    listed = run(*command, "--dry-run", "--json")
    assert [(name, one["above"]) for name, one in json.loads(listed.out).items()] == list(
        zip(RUNGS, [None, *RUNGS], strict=False)
    )
    assert not out.exists()
    ran = run(*command, "--json")
    assert ran.code == 0, ran
    found = json.loads(ran.out)
    assert found["figures"]["columns"][1:] == RUNGS
    assert "masking.rate" in [row[0] for row in found["differences"]["rows"]]
    assert "GeGLU" in ran.err
    assert (out / "compared.html").exists()


def test_what_contradicts_itself(run: Run, tmp_path: Path) -> None:
    ran = run("ladder", "mosaicbert", tmp_path, "--better", tmp_path, "--steps", 2, "--out", tmp_path / "out")
    assert ran.code == 2
    assert "the other ladder has one" in " ".join(ran.err.split())
