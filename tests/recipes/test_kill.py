"""`kill -9` at any moment of `bothways pretrain`, then the same command: the model is that of a run left alone."""

from __future__ import annotations

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
from bothways.training import log
from bothways.training.checkpoint import latest

SOURCE = Path(bothways.__file__).parents[1]
STEPS = 40
# One thread, since sums depend on their number in the last bits
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["bert", "modernbert"])
def test_killed_pretraining_goes_on_to_the_same_bytes(tmp_path: Path, recipe: str) -> None:
    """In one stage, and in three, of which the last ends with a mean of its checkpoints."""
    texts = write_texts(tmp_path / "texts")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    finish(command(texts, straight, recipe=recipe))
    first, second = sorted(random.SystemRandom().sample(range(1, STEPS - 4), 2))
    kill(command(texts, killed, recipe=recipe), killed, first)
    saved = latest(killed)
    assert saved is None or number(saved) < STEPS
    kill(command(texts, killed, workers=1, recipe=recipe), killed, second)
    finish(command(texts, killed, workers=0, recipe=recipe))
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


def command(texts: Path, out: Path, workers: int = 2, recipe: str = "bert") -> list[str]:
    changes = settings(f"workers={workers}", "training.checkpoint_every=3", "training.log_every=1")
    verb = ["pretrain", str(texts), "--out", str(out), "--recipe", recipe, "--steps", str(STEPS)]
    return [sys.executable, "-m", "bothways.cli", *verb, *changes]


def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    # in a group of its own, so that its workers can be killed with it
    return subprocess.Popen(arguments, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(arguments: Sequence[str]) -> None:
    subprocess.run(arguments, env=ENVIRONMENT, check=True, capture_output=True)


def kill(arguments: Sequence[str], folder: Path, step: int) -> None:
    """Start the command, and kill it and its workers once the log has come to a step."""
    child = start(arguments)
    try:
        wait(child, lambda: logged(folder) >= step)
    finally:
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
    # os.walk passes over folders that the run renames or removes while one looks, where rglob raises
    logs = (Path(place) / "log.jsonl" for place, _, files in os.walk(folder) if "log.jsonl" in files)
    return sum(path.read_bytes().count(b'"kind": "train"') for path in logs if path.exists())


def number(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def learned(folder: Path) -> list[tuple[int, int, float, float]]:
    """What the log says of each step, but for its time."""
    lines = [line for line in log.read(folder) if line["kind"] == "train"]
    return [(one["step"], one["tokens"], one["loss"], one["gradient_norm"]) for one in lines]
