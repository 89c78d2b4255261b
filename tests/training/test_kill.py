"""`kill -9` at any moment, then the same command: the weights are those of a run that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import torch

import bothways.training
from bothways.training.checkpoint import latest

from .test_loop import final, timeless
from .toy import STEPS, run

SCRIPT = Path(__file__).with_name("killed.py")
SOURCE = Path(bothways.training.__file__).parents[2]


def test_killed_again_and_again(tmp_path: Path) -> None:
    """Once at a random step, once while writing a checkpoint, then to the end."""
    run(tmp_path / "straight")
    folder, draw = tmp_path / "killed", random.SystemRandom()
    first = draw.randrange(2, STEPS - 4)
    kill(folder, "after", first)
    saved = latest(folder)
    assert saved is None or int(saved.name.removeprefix("step-")) <= first
    kill(folder, "writing", draw.randrange(8))  # five flushes a checkpoint
    run(folder)
    assert final(folder) == final(tmp_path / "straight")
    assert timeless(folder) == timeless(tmp_path / "straight")


def kill(folder: Path, moment: str, number: int) -> None:
    # sums depend on the number of threads in their last bits
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    child = subprocess.run(
        [sys.executable, SCRIPT, folder, moment, str(number)], env=environment, capture_output=True, check=False
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
