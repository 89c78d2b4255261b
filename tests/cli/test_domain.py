"""`bothways domain train`, and what `bothways curate` makes of it, of evaluation sets and of personal data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Refused, Run

pytest.importorskip("sklearn")
SEA, LAND = "ship harbour tide sail anchor mast", "barn horse hay field fence mill"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.jsonl"
    rows = [{"body": f"{SEA} {n}", "topic": "sea"} for n in range(20)] + [
        {"body": f"{LAND} {n}", "topic": "land"} for n in range(20)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    return path


def test_training(run: Run, labels: Path, tmp_path: Path) -> None:
    arguments = ("--text", "body", "--label", "topic", "--wanted", "sea")
    ran = run("domain", "train", labels, *arguments, "--out", tmp_path / "sea")
    assert ran.code == 0, ran.err
    assert "20 land, 20 sea" in ran.out
    assert "precision  1.000 (" in ran.out
    assert "1 rows repeat the text of another" in ran.err
    ran = run("domain", "train", labels, *arguments, "--recall", "0.8", "--out", tmp_path / "again", "--json")
    said = json.loads(ran.out)
    assert said["training"]["aim"] == {"type": "recall", "least": 0.8}
    assert said["held_out"]["rows"] == 12


def test_what_is_refused(refused: Refused, labels: Path, tmp_path: Path) -> None:
    start = ("domain", "train", labels, "--text", "body", "--label", "topic", "--out", tmp_path / "out")
    assert "no row is labelled 'sky'" in refused(*start, "--wanted", "sky")
    assert "--precision and --recall" in refused(*start, "--wanted", "sea", "--precision", "0.9", "--recall", "0.9")
    assert not (tmp_path / "out").exists()


def test_curation_with_all_three(run: Run, labels: Path, tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    assert (
        run("domain", "train", labels, "--text", "body", "--label", "topic", "--wanted", "sea", "--out", tmp_path / "sea").code
        == 0
    )
    corpus, row = tmp_path / "corpus", "The old mast stood on the ship all night."
    corpus.mkdir()
    (corpus / "sea.txt").write_text(f"{SEA}. Write to jane@example.com about the tide. {row} The anchor held.")
    (corpus / "land.txt").write_text(f"{LAND}. A cow.")
    (tmp_path / "dev.txt").write_text(row + "\n")
    out = tmp_path / "out"
    chosen = ("--domain", tmp_path / "sea", "--decontaminate", tmp_path / "dev.txt", "--pii")
    ran = run("curate", corpus, "--out", out, "--format", "jsonl", "--workers", "1", *chosen)
    assert ran.code == 0, ran.err
    written = [json.loads(line) for file in (out / "data").iterdir() for line in file.read_text().splitlines()]
    assert [one["text"] for one in written] == [f"{SEA}. Write to [EMAIL] about the tide. The anchor held."]
    assert "evaluation rows found" in ran.out
    assert "jane@" not in (out / "audit.html").read_text() + (out / "audit.json").read_text()
    before = (out / "audit.html").read_bytes()
    assert run("curate", corpus, "--out", out, "--format", "jsonl", "--workers", "1", *chosen).code == 0
    assert (out / "audit.html").read_bytes() == before  # done already: the time it took is not written anew
