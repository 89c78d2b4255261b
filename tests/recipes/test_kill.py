"""`kill -9` at any moment of `bothways pretrain`, then the same command: the model is that of a run left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.cli.test_training import settings, write_texts

import bothways
from bothways.training.checkpoint import latest

SOURCE = Path(bothways.__file__).parents[1]
STEPS = 40
# One thread, since sums depend on their number in the last bits
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@pytest.mark.slow
def test_killed_pretraining_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    finish(command(texts, straight))
    first, second = sorted(random.SystemRandom().sample(range(1, STEPS - 4), 2))
    kill(command(texts, killed), killed, first)
    saved = latest(killed)
    assert saved is None or number(saved) < STEPS
    kill(command(texts, killed, workers=1), killed, second)
    finish(command(texts, killed, workers=0))
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (killed / "model" / name).read_bytes() == (straight / "model" / name).read_bytes(), (name, first, second)
    assert learned(killed) == learned(straight)


@pytest.mark.slow
def test_killed_while_the_corpus_is_prepared(tmp_path: Path) -> None:
    """The tokenizer is there and nothing else: the next run makes the rest, from the same text."""
    texts = write_texts(tmp_path / "texts")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    finish(command(texts, straight))
    child = start(command(texts, killed))
    wait(child, lambda: (killed / "prepared-from.json").exists())
    end(child)
    finish(command(texts, killed))
    assert (killed / "model" / "model.safetensors").read_bytes() == (straight / "model" / "model.safetensors").read_bytes()


def command(texts: Path, out: Path, workers: int = 2) -> list[str]:
    changes = settings(f"workers={workers}", "training.checkpoint_every=3", "training.log_every=1")
    verb = ["pretrain", str(texts), "--out", str(out), "--recipe", "bert", "--steps", str(STEPS)]
    return [sys.executable, "-m", "bothways.cli", *verb, *changes]


def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    # in a group of its own, so that its workers can be killed with it
    return subprocess.Popen(arguments, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(arguments: Sequence[str]) -> None:
    subprocess.run(arguments, env=ENVIRONMENT, check=True, capture_output=True)


def kill(arguments: Sequence[str], folder: Path, step: int) -> None:
    """Start the command, and kill it and its workers once the log has come to a step."""
    child = start(arguments)
    wait(child, lambda: logged(folder) >= step)
    end(child)


def wait(child: subprocess.Popen[bytes], seen: Callable[[], bool]) -> None:
    while not seen():
        assert child.poll() is None, child.communicate()[1].decode()
        time.sleep(0.002)


def end(child: subprocess.Popen[bytes]) -> None:
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL


def logged(folder: Path) -> int:
    path = folder / "log.jsonl"
    return path.read_bytes().count(b'"kind": "train"') if path.exists() else 0


def number(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def learned(folder: Path) -> list[tuple[int, int, float, float]]:
    """What the log says of each step, but for its time."""
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(one["step"], one["tokens"], one["loss"], one["gradient_norm"]) for one in lines if one["kind"] == "train"]
