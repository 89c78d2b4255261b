"""What training cannot use, a disk that is full, and Ctrl-C: a line each, and a folder that the same command goes on with."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tests.cli.conftest import LONGEST, WORDS, Refused, Run
from tests.cli.test_bad_input import on_a_full_disk, snapshot
from tests.cli.test_training import contents, settings, write_csv, write_texts

Command = Sequence[str | Path | int]

# -- texts and rows -----------------------------------------------------------------------------

UNREADABLE = {
    "empty": (b"", "the file is empty"),
    "binary": (b"text,label\nthe cat\0\1\2,a\n", "a binary file"),
    "latin-1": ("text,label\ncaf\u00e9,a\n".encode("latin-1"), "not utf-8 at byte 14"),
    "one line": (b"text,label\n" + b"word " * 4000 + b",a\n", "over 10,000 characters"),
}


@pytest.mark.parametrize("fault", UNREADABLE)
@pytest.mark.parametrize("verb", ["pretrain", "finetune", "held-out", "contrast"])
def test_unreadable(run: Run, model: Path, tmp_path: Path, verb: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bothways.data.reading.LONGEST", 10_000)
    content, message = UNREADABLE[fault]
    file = tmp_path / ("bad.txt" if verb == "pretrain" else "bad.csv")
    file.write_bytes(content)
    good = write_csv(tmp_path / "good.csv", ("text", "label"), [("the cat", "a"), ("the dog", "b")])
    commands: dict[str, Command] = {
        "pretrain": ("pretrain", file, *settings()),
        "finetune": ("finetune", model, file),
        "held-out": ("finetune", model, good, "--held-out", file),
        "contrast": ("finetune", model, file, "--contrast", "text,label"),
    }
    ran = run(*commands[verb], "--steps", 1, "--out", tmp_path / "run")
    error = ran.err.splitlines()[-1]
    assert (ran.code, ran.out) == (1, ""), ran
    assert error.startswith(f"error: {file}")
    assert message in error
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_missing_column_of_held_out_rows(refused: Refused, model: Path, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "rows.csv", ("text", "label"), [("the cat", "a"), ("the dog", "b")])
    held = write_csv(tmp_path / "held.csv", ("text", "stars"), [("the cat", "a")])
    message = refused("finetune", model, rows, "--held-out", held, "--steps", 1, "--out", tmp_path / "run")
    assert f"{held}: no column 'label'; the columns there are: text, stars" in message
    assert not (tmp_path / "run").exists()


# -- folders ------------------------------------------------------------------------------------


@pytest.fixture
def finetuning(model: Path, tmp_path: Path) -> Command:
    rows = write_csv(tmp_path / "rows.csv", ("text", "label"), [("the cat", "a"), ("the dog", "b")] * 4)
    return ("finetune", model, rows, "--out", tmp_path / "run", "--steps", 2)


@pytest.fixture
def pretraining(tmp_path: Path) -> Command:
    texts = write_texts(tmp_path / "texts")
    return ("pretrain", texts, "--out", tmp_path / "run", "--steps", 4, *settings("training.checkpoint_every=2"))


def test_finetuning_into_the_folder_of_another_run(run: Run, finetuning: Command, pretraining: Command, tmp_path: Path) -> None:
    assert run(*finetuning).code == 0
    before = contents(tmp_path / "run")
    for other, culprit in ((("--lr", 0.5), "training.optimizer.lr"), (("--contrast", "text,label"), "run.json")):
        ran = run(*finetuning, *other)
        assert (ran.code, ran.out) == (1, "")
        error = ran.err.splitlines()[-1]
        assert error.startswith(f"error: {tmp_path / 'run' / 'run.json'}")
        assert culprit in error
    assert run(*pretraining).code == 1
    assert contents(tmp_path / "run").items() >= before.items()


@pytest.mark.slow
def test_a_damaged_checkpoint(run: Run, pretraining: Command, tmp_path: Path) -> None:
    """It is named, and the run goes on from the one before, to the same weights; with none whole, it says so."""
    assert run(*pretraining).code == 0
    before = contents(tmp_path / "run")
    checkpoints, weights = tmp_path / "run" / "checkpoints", tmp_path / "run" / "model" / "model.safetensors"
    for name in ("weights.safetensors", "optimizer.safetensors", "state.json"):
        damaged = checkpoints / "step-0000004" / name
        damaged.write_bytes(damaged.read_bytes()[:-9])
        weights.unlink()
        ran = run(*pretraining)
        assert ran.code == 0, ran
        (line,) = (line for line in ran.err.splitlines() if "is damaged" in line)
        assert line.startswith(f"{damaged.parent} is damaged ({name} has ")
        assert line.endswith("renamed damaged-step-0000004; going on from step-0000002")
        assert weights.read_bytes() == before["model/model.safetensors"]
    for place in checkpoints.glob("step-*"):
        (place / "weights.safetensors").unlink()
    ran = run(*pretraining)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[-1].startswith(f"error: {checkpoints}: no checkpoint is whole (step-0000004: ")


@pytest.mark.parametrize(("stage", "limit"), [("tokenizer", 5_000), ("data", 20_000), ("checkpoints", 100_000)])
def test_a_full_disk_in_pretraining(pretraining: Command, tmp_path: Path, stage: str, limit: int) -> None:
    (tmp_path / "texts" / "long.txt").write_text(WORDS * 1000)
    done = on_a_full_disk(limit, *map(str, pretraining))
    assert_full(done, tmp_path / "run" / stage)
    assert not list((tmp_path / "run").glob(f"{stage}/*"))


def test_a_full_disk_in_finetuning(finetuning: Command, tmp_path: Path) -> None:
    assert_full(on_a_full_disk(10_000, *map(str, finetuning)), tmp_path / "run" / "checkpoints")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.parametrize("verb", ["pretraining", "finetuning"])
@pytest.mark.slow
def test_a_full_disk_at_the_model(run: Run, tmp_path: Path, verb: str, request: pytest.FixtureRequest) -> None:
    """Training is done and saved: with room, the same command only writes the model."""
    command: Command = request.getfixturevalue(verb)
    assert run(*command).code == 0
    model = tmp_path / "run" / "model"
    expected = contents(model)
    shutil.rmtree(model)
    assert_full(on_a_full_disk(10_000, *map(str, command)), model)
    assert run(*command).code == 0
    assert contents(model) == expected


def assert_full(done: subprocess.CompletedProcess[str], place: Path) -> None:
    error = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (1, ""), done
    assert error.startswith("error: ")
    assert str(place) in error
    assert os.strerror(errno.EFBIG) in error
    assert "Traceback" not in done.stderr


# -- Ctrl-C -------------------------------------------------------------------------------------


def test_an_interrupted_pretraining_goes_on(run: Run, tmp_path: Path) -> None:
    texts, out = write_texts(tmp_path / "texts"), tmp_path / "run"
    smaller = settings("batching.tokens=64", "training.log_every=1")
    command = [str(word) for word in ("pretrain", texts, "--out", out, "--steps", 40, *smaller)]
    with subprocess.Popen([sys.executable, "-m", "bothways.cli", *command], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (out / "log.jsonl").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    (checkpoint,) = (out / "checkpoints").iterdir()
    assert 1 <= int(checkpoint.name.removeprefix("step-")) < 40
    assert f"saved {checkpoint}; the same command goes on from there:\n" in said
    assert " ".join(command) in said.splitlines()[-1]
    assert not (out / "model").exists()
    ran = run(*command, "--json")
    assert ran.code == 0, ran
    assert json.loads(ran.out)["steps"] == 40
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines() if '"train"' in line]
    assert steps == list(range(1, 41))


# -- models and texts too long ------------------------------------------------------------------


def test_texts_too_long_are_refused_or_cut_with_a_count(run: Run, refused: Refused, model: Path, tmp_path: Path) -> None:
    assert f"the encoder takes at most {LONGEST}" in refused("fill", model, f"[MASK] {WORDS}")
    texts, out = tmp_path / "texts.txt", tmp_path / "index"
    texts.write_text("the cat\n")
    assert run("index", model, texts, "--out", out).code == 0
    for method in ("dense", "hybrid"):
        ran = run("search", out, WORDS, "--method", method)
        assert ran.code == 0
        assert ran.err.startswith(f"warning: 1 of 1 texts were cut to {LONGEST - 2} tokens (")
    assert run("search", out, WORDS, "--method", "bm25").err == ""


def test_a_missing_shard_of_the_weights(run: Run, refused: Refused, model: Path, finetuning: Command, tmp_path: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for shard, part in shards.items():
        save_file({name: tensors[name] for name in part}, model / shard)
    placed = {name: shard for shard, part in shards.items() for name in part}
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}))
    (model / "model.safetensors").unlink()
    assert run("info", model).code == 0
    (model / "model-00002-of-00002.safetensors").unlink()
    before = snapshot(tmp_path)
    for command in (("info", model), ("convert", model, tmp_path / "new"), finetuning):
        assert f"{index}: names model-00002-of-00002.safetensors, which is not there" in refused(*command)
    assert snapshot(tmp_path) == before
