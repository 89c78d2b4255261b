"""`tokenizer train` on a sample, `report` side by side, `transplant`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import WORDS, Refused, Run

import bothways

GERMAN = "die Katze saß auf einer Matte und der Hund lief unter einem Baum während Fische im Meer schwimmen"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join([WORDS] * 30))
    return file


def test_training_on_a_sample_says_so(run: Run, texts: Path, tmp_path: Path) -> None:
    ran = run(
        "tokenizer", "train", texts, "--out", tmp_path / "t", "--vocab-size", "100", "--sample", "500", "--multiple-of", "64"
    )
    assert ran.code == 0, ran
    assert "learnt from a sample of 6 of 30 texts (456 characters, 20.0% of the characters)" in ran.out
    assert "128 tokens" in ran.out
    said = json.loads(run("tokenizer", "train", texts, "--out", tmp_path / "u", "--vocab-size", "100", "--json").out)
    assert (said["vocab_size"], said["unused"], said["texts"], said["texts_read"]) == (68, 0, 30, 30)


def test_side_by_side(run: Run, refused: Refused, model: Path, texts: Path, tmp_path: Path) -> None:
    german = tmp_path / "german.txt"
    german.write_text(GERMAN)
    assert run("tokenizer", "train", german, "--out", tmp_path / "t", "--vocab-size", "200").code == 0
    command = ("tokenizer", "report", model, texts, german, "--against", tmp_path / "t")
    found = json.loads(run(*command, "--json").out)
    assert list(found) == ["german.txt", "texts.txt", "all"]
    ours, theirs = found["german.txt"].values()
    assert ours["tokens_per_word"] > theirs["tokens_per_word"]
    assert found["all"][str(model)]["words"] == len(GERMAN.split()) + 30 * len(WORDS.split())
    assert "german.txt" in run(*command).out
    assert "the very tokenizer" in refused("tokenizer", "report", model, texts, "--against", model)


def test_by_a_column(run: Run, refused: Refused, model: Path, tmp_path: Path) -> None:
    table = tmp_path / "texts.jsonl"
    rows = [{"language": "en", "text": WORDS}, {"language": "de", "text": GERMAN}]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = json.loads(run("tokenizer", "report", model, table, "--by", "language", "--json").out)
    assert list(found) == ["de", "en", "all"]
    assert "no column 'tongue'" in refused("tokenizer", "report", model, table, "--by", "tongue")


def test_transplant(run: Run, refused: Refused, model: Path, texts: Path, tmp_path: Path) -> None:
    assert (
        run(
            "tokenizer", "train", texts, "--out", tmp_path / "t", "--kind", "bpe", "--specials", "bert", "--vocab-size", "300"
        ).code
        == 0
    )
    out = tmp_path / "moved"
    said = json.loads(run("tokenizer", "transplant", model, tmp_path / "t", "--out", out, "--json").out)
    moved = bothways.load(out)
    assert moved.spec.encoder.vocab_size == said["rows"]
    assert said["copied"] + said["composed"] + said["fresh"] + said["unused"] == said["rows"]
    assert len(run("fill", out, "the cat [MASK] on a mat").out) > 0
    assert "exists already" in refused("tokenizer", "transplant", model, tmp_path / "t", "--out", out)
