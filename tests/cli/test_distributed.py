"""`pretrain` as a scheduler runs it: in several processes, told to end by a SIGTERM, and gone on with in other numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from tests.cli.test_training import settings, write_texts

import bothways
from bothways.training import log

SOURCE = Path(bothways.__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
BOTHWAYS = [sys.executable, "-m", "bothways"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "bothways"]
CHANGES = settings("batching.tokens=64", "training.log_every=1", "training.accumulate=3", "training.checkpoint_every=5")


def words(texts: Path, out: Path, steps: int, *more: str) -> list[str]:
    return ["pretrain", str(texts), "--out", str(out), "--recipe", "bert", "--steps", str(steps), *CHANGES, *more]


def losses(out: Path) -> list[tuple[int, int, float]]:
    return [(line["step"], line["tokens"], line["loss"]) for line in log.read(out) if line["kind"] == "train"]


def terminated(command: list[str], out: Path) -> tuple[int, str]:
    """The exit code and what was said, when a SIGTERM comes after the first lines of the log."""
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while process.poll() is None and not (out / "log.jsonl").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=120)
    return process.returncode, said


def test_sigterm_saves_and_is_no_failure(tmp_path: Path) -> None:
    texts, out = write_texts(tmp_path / "texts"), tmp_path / "run"
    code, said = terminated([*BOTHWAYS, *words(texts, out, 1000)], out)
    assert code == 0, said
    saved = max((out / "checkpoints").iterdir())
    assert f"saved {saved}; the same command goes on from there:\n  bothways pretrain {texts}" in said
    assert not (out / "model").exists()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["replicate", "shard"])
def test_two_processes_learn_what_one_does(tmp_path: Path, parallel: str) -> None:
    """One to the end; two, sharded or not, with workers of their own."""
    texts = write_texts(tmp_path / "texts")
    more = ["--set", "workers=1", "--set", f"training.parallel.type={parallel}", "--json"]
    ran = subprocess.run([*TORCHRUN, *words(texts, tmp_path / "two", 12, *more)], env=ENVIRONMENT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["steps"] == 12  # one of them speaks
    subprocess.run([*BOTHWAYS, *words(texts, tmp_path / "one", 12)], env=ENVIRONMENT, capture_output=True, check=True)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [line[:2] for line in one] == [line[:2] for line in two]
    assert [line[2] for line in one] == pytest.approx([line[2] for line in two], abs=1e-5)
    mine, yours = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    assert mine.keys() == yours.keys()
    assert all(abs(mine[name] - yours[name]).max() < 1e-4 for name in mine)
    assert "torchrun --nproc-per-node 2 -m bothways pretrain" in (tmp_path / "two" / "report.html").read_text()


@pytest.mark.slow
def test_a_launched_run_is_preempted_and_goes_on_alone(tmp_path: Path) -> None:
    texts, out = write_texts(tmp_path / "texts"), tmp_path / "run"
    launch = [*BOTHWAYS, "launch", "--processes", "2", *words(texts, out, 300)]
    code, said = terminated(launch, out)
    assert code == 0, said
    assert said.count("the same command goes on from there:\n  torchrun --nproc-per-node 2 -m bothways pretrain") == 1
    assert "Traceback" not in said
    done = losses(out)
    assert 0 < done[-1][0] < 300
    ran = subprocess.run([*BOTHWAYS, *words(texts, out, 300)], env=ENVIRONMENT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert [line[0] for line in losses(out)] == [*range(1, 301)]
    assert losses(out)[: len(done)] == done
