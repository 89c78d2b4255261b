"""`bothways tokenize`, and pretraining on what it writes: a folder, and a mixture of folders and text."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.conftest import WORDS, Run
from tests.cli.test_training import contents, write_texts

import bothways
from bothways.cli import tokenize
from bothways.data.shards import Shards
from bothways.data.source import Document
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import WordPiece, train_tokenizer

SETTINGS = [part for one in ("encoder.num_layers=1", "batching.tokens=512", "max_length=32") for part in ("--set", one)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(WordPiece(vocab_size=120), [WORDS] * 20).save(folder)
    return folder


def write_rows(path: Path, rows: int, words: int = 40) -> Path:
    draw = random.Random(1)
    lines = (json.dumps({"body": " ".join(draw.choices(WORDS.split(), k=draw.randint(1, words)))}) for _ in range(rows))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_tokenize(run: Run, tokenizer: Path, tmp_path: Path) -> None:
    table, out = write_rows(tmp_path / "rows.jsonl", 60), tmp_path / "shards"
    command = ("tokenize", table, "--column", "body", "--tokenizer", tokenizer, "--out", out, "--shard-tokens", 300, "--json")
    ran = run(*command)
    assert ran.code == 0, ran
    said = json.loads(ran.out)
    manifest = Shards(out, Tokenizer.load(tokenizer)).manifest
    assert (said["documents"], said["tokens"], said["shards"]) == (60, manifest.tokens, len(manifest.shards))
    assert len(manifest.shards) > 2
    assert "1 file" in ran.err
    again = run(*command)
    assert (again.code, again.err.count("exists already")) == (1, 1)
    parallel = run(*command[:7], tmp_path / "parallel", *command[8:], "--workers", 1)
    assert parallel.code == 0, parallel
    assert contents(tmp_path / "parallel") == contents(out)
    lines = run("tokenize", table, "--column", "body", "--tokenizer", tokenizer, "--out", tmp_path / "x", "--split", "paragraph")
    assert lines.code == 0, lines
    assert "60" in lines.out


def test_progress_comes_to_all_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over files plain and packed, whatever part of them is text, and with documents of every kind of place."""
    plain, packed = tmp_path / "a:1.txt", tmp_path / "b.jsonl.gz"
    plain.write_text("x" * 50)
    packed.write_bytes(gzip.compress(b"y" * 1000))
    advanced, totals = list[tuple[int, int]](), list[int | None]()

    @contextmanager
    def progress(total: int | None, unit: str) -> Iterator[Callable[[int, int], None]]:
        totals.append(total)
        yield lambda done, tokens: advanced.append((done, tokens))

    monkeypatch.setattr(tokenize, "progress", progress)
    with tokenize._told((plain, packed)) as told:
        told([Document("x" * 40, f"{plain}")], 10)
        told([Document("y" * 300, f"{packed}:1"), Document("y" * 5000, f"{packed}:2:7")], 20)
    assert totals == [1050]
    assert advanced == [(40, 10), (1010, 20), (0, 0)]


@pytest.mark.slow
def test_pretrain_on_a_token_folder(run: Run, tokenizer: Path, tmp_path: Path) -> None:
    """Its own tokenizer is the run's, and the vocabulary is as large as that one's."""
    texts, shards, out = write_texts(tmp_path / "texts"), tmp_path / "shards", tmp_path / "run"
    assert run("tokenize", texts, "--tokenizer", tokenizer, "--out", shards).code == 0
    ran = run("pretrain", shards, "--out", out, "--recipe", "bert", "--steps", 30, *SETTINGS)
    assert ran.code == 0, ran
    assert "12 documents" in ran.err
    assert "corpus: gone through" in ran.err  # 30 steps of 512 tokens over some 1,000
    assert not (out / "data").exists()
    model = bothways.load(out / "model")
    assert model.spec.encoder.vocab_size == 128
    page = (out / "report.html").read_text()
    assert "<h2>Data</h2>" in page or ">Data<" in page
    raw = run(
        "pretrain", texts, "--tokenizer", tokenizer, "--out", tmp_path / "raw", "--recipe", "bert", "--steps", 30, *SETTINGS
    )
    assert raw.code == 0, raw
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (out, tmp_path / "raw")]
    assert weights[0] == weights[1]  # text is text, whenever it was tokenised


def mixture(path: Path, parts: Sequence[tuple[str, float, Mapping[str, object]]]) -> Path:
    tree = {"type": "mixture", "parts": [{"name": name, "weight": weight, "source": source} for name, weight, source in parts]}
    path.write_text(json.dumps(tree))
    return path


@pytest.mark.slow
def test_pretrain_on_a_mixture(run: Run, tokenizer: Path, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "rows.jsonl", 80, 100)
    shards = tmp_path / "shards"
    assert run("tokenize", table, "--column", "body", "--tokenizer", tokenizer, "--out", shards).code == 0
    texts = write_texts(tmp_path / "texts", 30)
    parts: list[tuple[str, float, Mapping[str, object]]] = [
        ("all", 0.2, {"type": "tokens", "folder": str(shards)}),
        ("long", 0.5, {"type": "tokens", "folder": str(shards), "at_least": 50}),
        ("notes", 0.3, {"type": "text", "paths": [str(texts)]}),
    ]
    corpus, out = mixture(tmp_path / "mixture.json", parts), tmp_path / "run"
    warmup = ["--set", 'length_warmup={"stages": [{"max_length": 8, "tokens": 3000}]}', "--set", "held_out=0.1"]
    command = ("pretrain", corpus, "--out", out, "--recipe", "bert", "--steps", 40, *SETTINGS, *warmup)
    ran = run(*command)
    assert ran.code == 0, ran
    assert "documents have 50 tokens or more" in ran.err
    for name in ("all", "long", "notes"):
        assert f"{name}: " in ran.err
    assert (out / "data" / "notes" / "manifest.json").exists()
    first = (out / "model" / "model.safetensors").read_bytes()
    other = run(*command[:3], tmp_path / "again", *command[4:], "--set", "workers=2")
    assert other.code == 0, other
    assert (tmp_path / "again" / "model" / "model.safetensors").read_bytes() == first
    page = (out / "report.html").read_text()
    assert all(f">{text}<" in page for text in ("long", "50.0%", "30.0%"))


def test_bad_mixtures(run: Run, tokenizer: Path, tmp_path: Path) -> None:
    rows, shards = write_rows(tmp_path / "rows.jsonl", 20), tmp_path / "shards"
    assert run("tokenize", rows, "--column", "body", "--tokenizer", tokenizer, "--out", shards).code == 0
    for source, complaint in (
        ({"type": "tokens", "folder": str(tmp_path / "nowhere")}, "nowhere: no tokenised text"),
        ({"type": "tokens", "folder": str(shards), "at_least": 9_000}, "no document has 9,000 tokens or more; the longest has"),
        ({"type": "tokens", "folder": str(shards), "at_lest": 9}, "no field 'at_lest'; did you mean 'at_least'"),
    ):
        corpus = mixture(tmp_path / "mixture.json", [("a", 1.0, source)])
        ran = run(
            "pretrain", corpus, "--tokenizer", tokenizer, "--out", tmp_path / "run", "--recipe", "bert", "--steps", 2, *SETTINGS
        )
        assert (ran.code, complaint in ran.err) == (1, True), ran
    warmup = ["--set", 'length_warmup={"stages": [{"max_length": 32, "tokens": 9}]}']
    ran = run("pretrain", shards, "--out", tmp_path / "run", "--recipe", "bert", "--steps", 2, *SETTINGS, *warmup)
    assert (ran.code, "length_warmup: a limit of 32 is not below max_length 32" in ran.err) == (1, True), ran
    other = tmp_path / "other"
    train_tokenizer(WordPiece(vocab_size=40), [WORDS] * 20).save(other)
    ran = run("pretrain", shards, "--tokenizer", other, "--out", tmp_path / "run2", "--recipe", "bert", "--steps", 2, *SETTINGS)
    assert (ran.code, "made with another tokenizer" in ran.err) == (1, True), ran


@pytest.mark.slow
def test_killed_at_random_moments_it_writes_the_same_bytes(tokenizer: Path, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "rows.jsonl", 60_000, 60)
    environment = os.environ | {"PYTHONPATH": str(Path(bothways.__file__).parents[1])}
    draw = random.SystemRandom()

    def start(out: Path, workers: int) -> subprocess.Popen[bytes]:
        command = ["tokenize", str(table), "--column", "body", "--tokenizer", str(tokenizer), "--out", str(out)]
        options = ["--shard-tokens", "50000", "--workers", str(workers)]
        return subprocess.Popen(
            [sys.executable, "-m", "bothways.cli", *command, *options], env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    begin = time.monotonic()
    straight = start(tmp_path / "straight", 0)
    straight.communicate()
    assert straight.returncode == 0
    needed = time.monotonic() - begin
    out = tmp_path / "killed"
    for number in range(6):
        child = start(out, number % 3)
        time.sleep(draw.uniform(0.3, 1.0) * needed)
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        if out.exists():
            break
    else:
        last = start(out, 2)
        assert last.communicate()[1].decode().count("1 file") == 1
        assert last.returncode == 0
    assert contents(out) == contents(tmp_path / "straight")
