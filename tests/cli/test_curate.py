"""`bothways curate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Refused, Run
from tests.data.curation.corpus import contents, prose, write_lines

pytest.importorskip("datatrove", reason="pip install 'bothways[data]'")
pytest.importorskip("rensa", reason="pip install 'bothways[data]'")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    write_lines(tmp_path / "texts/a.jsonl", [*(prose(seed) for seed in range(8)), prose(3), "Short."])
    return tmp_path / "texts"


def test_the_table_and_the_files(run: Run, texts: Path, tmp_path: Path) -> None:
    ran = run("curate", texts, "--out", tmp_path / "out", "--workers", 1, "--format", "jsonl.zst")
    assert ran.code == 0, ran.err
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert lines[0] == "documents characters"
    assert lines[1].startswith("read 10 ")
    assert lines[2].startswith("exact_duplicates kept 9 ")
    assert lines[3].startswith("dropped: the same text 1 ")
    assert lines[4].startswith("near_duplicates kept 9 ")
    assert "9 of 10 documents" in lines[-2]
    assert set(contents(tmp_path / "out")) == {"audit.json", "manifest.json", "data/000000.jsonl.zst"}
    again = run("curate", texts, "--out", tmp_path / "out", "--workers", 1, "--format", "jsonl.zst", "--json")
    assert "done already" in again.err
    assert json.loads(again.out)["output"]["documents"] == 9


def test_a_recipe_is_printed_changed_and_read(run: Run, texts: Path, tmp_path: Path) -> None:
    printed = run("curate", texts, "--language", "eng", "--dry-run")
    steps = [step["type"] for step in json.loads(printed.out)["steps"]]
    assert steps == ["exact_duplicates", "language", "gopher_repetition", "gopher_quality", "near_duplicates"]
    recipe = json.loads(printed.out)
    recipe["steps"] = [{"type": "gopher_quality"}]
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    options = ("--config", tmp_path / "recipe.json", "--set", "steps.0.min_words=1", "--set", "steps.0.min_stop_words=null")
    options += ("--set", "steps.0.alphabetic=null")
    ran = run("curate", texts, "--out", tmp_path / "out", "--workers", 1, *options, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["output"]["documents"] == 10


def test_what_cannot_be_used_is_told_in_a_line(refused: Refused, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "--out: name the folder" in refused("curate", texts)
    assert "'english' is not known" in refused("curate", texts, "--out", out, "--language", "english")
    assert "no such file; `bothways curate SOURCE --dry-run`" in refused("curate", texts, "--config", tmp_path / "no.json")
    assert "no such file or folder" in refused("curate", tmp_path / "nothing", "--out", out)
    (tmp_path / "picture.png").write_bytes(b"png")
    assert "unknown suffix '.png'" in refused("curate", tmp_path / "picture.png", "--out", out)
    assert "did you mean 'min_words'" in refused(
        "curate", texts, "--out", out, "--language", "eng", "--set", "steps.3.min_word=2"
    )
    assert not (out / "manifest.json").exists()
