"""The demo, with seconds in place of minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothways.recipes.demo import Plan, demo

pytest.importorskip("sklearn")

TRAINED = ("pretrained", "operands", "operands-scratch", "embedder", "embedder-scratch")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bothways.model.overflow.CutWarning")
def test_demo(tmp_path: Path) -> None:
    plan = Plan(pretraining=2, task=1, embedder=1, queries=20, most_modules=25)
    said: list[str] = []
    first = demo(tmp_path, said.append, plan)
    assert [row[0] for row in first.results.rows] == [
        "swapped operands",
        "summary to function",
    ]
    figures = [cell for row in first.results.rows for cell in row[2:]]
    assert len(figures) == 6
    assert all(isinstance(figure, float) and 0 <= figure <= 1 for figure in figures)
    assert len(first.answers.rows) == 9
    assert first.report == tmp_path / "report.html"
    page = first.report.read_text()
    assert "What pretraining brings" in page
    assert "https://" not in page
    assert sum(line[0].isdigit() for line in said if line[1:2] == "/") == 5

    logs = {name: (tmp_path / name / "log.jsonl").read_bytes() for name in TRAINED}
    weights = {name: (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in TRAINED}
    second = demo(tmp_path, said.append, plan)
    assert {name: (tmp_path / name / "log.jsonl").read_bytes() for name in TRAINED} == logs
    assert {name: (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in TRAINED} == weights
    assert second == first
