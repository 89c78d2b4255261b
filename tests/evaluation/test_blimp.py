"""BLiMP: what is read, that ties fail, shares by set, field and overall, and a model that knows some grammar."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.evaluation.test_pseudo_likelihood import build

from bothways.data.tokenizer_training import WordPiece, train_tokenizer
from bothways.errors import InputError
from bothways.evaluation.blimp import BlimpScores, MinimalPairs, PairScores, blimp_table, evaluate_blimp, read_blimp
from bothways.evaluation.pseudo_likelihood import pseudo_log_likelihoods

ROW = {
    "sentence_good": "A cat sleeps.",
    "sentence_bad": "A cat sleep.",
    "UID": "agree",
    "field": "syntax",
    "linguistics_term": "sv",
}
OTHER = {**ROW, "sentence_good": "No cat ever slept.", "sentence_bad": "A cat ever slept.", "UID": "npi", "field": "semantics"}


def lines(*rows: dict[str, str]) -> str:
    return "".join(json.dumps({**row, "pairID": str(number)}) + "\n" for number, row in enumerate(rows))


def archive(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def test_folder_and_archive_hold_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "blimp"
    folder.mkdir()
    (folder / "npi.jsonl").write_text(lines(OTHER))
    (folder / "agree.jsonl").write_text(lines(ROW, {**ROW, "sentence_good": "Cats sleep.", "sentence_bad": "Cats sleeps."}))
    (folder / "README.md").write_text("about")
    found = read_blimp(folder)
    assert found == (
        MinimalPairs("agree", "syntax", "sv", ("A cat sleeps.", "Cats sleep."), ("A cat sleep.", "Cats sleeps.")),
        MinimalPairs("npi", "semantics", "sv", ("No cat ever slept.",), ("A cat ever slept.",)),
    )
    files = {f"blimp/{path.name}": path.read_text() for path in folder.iterdir()}
    assert read_blimp(archive(tmp_path / "blimp.tar.gz", {**files, "blimp/._npi.jsonl": "a note of macOS"})) == found


FAULTS = [
    (lines(ROW) + "{", r"a\.jsonl:2: not valid JSON"),
    (lines(ROW, {**ROW, "sentence_bad": ""}), r"a\.jsonl:2: no text 'sentence_bad'"),
    ("[1]\n", r"a\.jsonl:1: no text 'sentence_good'"),
    (lines(ROW, OTHER), r"a\.jsonl: pairs of 2 sets"),
    ("\n", r"a\.jsonl: pairs of 0 sets"),
]


@pytest.mark.parametrize(("text", "message"), FAULTS)
def test_faulty_files(tmp_path: Path, text: str, message: str) -> None:
    folder = tmp_path / "sets"
    folder.mkdir()
    (folder / "a.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        read_blimp(folder)
    with pytest.raises(InputError, match=message):
        read_blimp(archive(tmp_path / "a.tar", {"a.jsonl": text}))


def test_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.jsonl file"):
        read_blimp(tmp_path)
    with pytest.raises(InputError, match="nothing there"):
        read_blimp(tmp_path / "none")
    (tmp_path / "text.tar.gz").write_text("no archive")
    with pytest.raises(InputError, match=r"text\.tar\.gz: not a readable tar archive"):
        read_blimp(tmp_path / "text.tar.gz")
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(lines(ROW))
    with pytest.raises(InputError, match="'agree' is in two files"):
        read_blimp(tmp_path)


def scores(name: str, field: str, good: list[float], bad: list[float]) -> PairScores:
    pairs = MinimalPairs(name, field, f"p of {name}", ("g",) * len(good), ("b",) * len(bad))
    return PairScores(pairs, np.array(good), np.array(bad))


def test_shares_by_hand() -> None:
    """a: 2 of 4 (one tie, one tie but for rounding); b: 1 of 1; c: 0 of 2. Each set weighs the same."""
    found = BlimpScores(
        (
            scores("a", "syntax", [-1, -2, -3, -4], [-2, -3, -3, -4 - 1e-6]),
            scores("b", "syntax", [-1], [-2]),
            scores("c", "semantics", [-2, -9], [-1, -8]),
        ),
        "token",
    )
    assert found.ties == 2
    assert {name: share.mean for name, share in found.by_set.items()} == {"a": 0.5, "b": 1, "c": 0}
    assert {name: share.mean for name, share in found.fields.items()} == {"syntax": 0.75, "semantics": 0}
    assert found.overall.mean == 0.5
    assert found.overall.low < 0.5 < found.overall.high
    assert (found.by_set["b"].low, found.by_set["c"].high) == (1, 0)
    table = blimp_table(found, "m")
    assert list(table.rows[0])[:3] == ["overall", "BLiMP", 50]
    assert len(table.rows) == 1 + 2 + 3 + 3
    assert "7 pairs in 3 sets" in table.note
    assert "2 ties" in table.note


SENTENCES = ("the cat sleeps", "the cats sleep", "the dog runs", "the dogs run", "a cat sees the dogs", "a dog sees the cats")


def swapped(text: str) -> str:
    return " ".join(reversed(text.split()))


def test_a_model_that_cannot_tell_gets_nothing() -> None:
    """Its scores depend on which words there are, not on their order: pairs of the same words are ties, summed as they may be."""
    model = build(train_tokenizer(WordPiece(vocab_size=60), SENTENCES))
    with torch.no_grad():
        model.encoder.embedding.tokens.weight.zero_()
    pairs = MinimalPairs("order", "syntax", "order", SENTENCES, tuple(map(swapped, SENTENCES)))
    found = evaluate_blimp(model, [pairs])
    assert found.overall.mean == 0
    assert found.ties == len(SENTENCES)


def test_it_is_the_comparison_of_the_scores() -> None:
    model = build(train_tokenizer(WordPiece(vocab_size=60), SENTENCES))
    pairs = MinimalPairs("order", "syntax", "order", SENTENCES, tuple(map(swapped, SENTENCES)))
    told: list[int] = []
    for scoring in ("token", "word_l2r"):
        found = evaluate_blimp(model, [pairs, pairs], scoring, limit=4, progress=lambda texts, tokens: told.append(texts))
        good, bad = (pseudo_log_likelihoods(model, one[:4], scoring) for one in (pairs.good, pairs.bad))
        assert found.sets[1].good == pytest.approx(good, rel=1e-5)
        assert found.sets[1].bad == pytest.approx(bad, rel=1e-5)
        assert found.sets[0].right == (good > bad).sum()
        assert found.ties == 0
    assert told == [8] * 4


def test_the_benchmark(shared: Path) -> None:
    found = read_blimp(shared / "data/probes/blimp.tar.gz")
    assert len(found) == 67
    assert {len(one.good) for one in found} == {1000}
    assert {one.field for one in found} == {"morphology", "syntax", "semantics", "syntax_semantics"}
    assert len({one.phenomenon for one in found}) == 13
    assert found[5].good[0] != found[5].bad[0]
