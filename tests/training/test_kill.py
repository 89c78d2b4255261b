"""`kill -9` at any moment, then the same command: the weights are those of a run that was left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bothways.training
from bothways.training.checkpoint import OPTIMIZER, WEIGHTS, damage, latest

from .test_loop import timeless

SCRIPT = Path(__file__).with_name("killed.py")
SOURCE = Path(bothways.training.__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [range(4), pytest.param(range(20), marks=pytest.mark.slow)], ids=["4", "20"])
def test_killed_again_and_again(tmp_path: Path, seeds: range) -> None:
    """Behind steps, during steps and during saves, with other worker counts each time; then to the end."""
    assert learn(tmp_path / "straight") == 0
    assert learn(tmp_path / "killed", *seeds) == len(seeds)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "straight")
    assert timeless(tmp_path / "killed") == timeless(tmp_path / "straight")


def learn(folder: Path, *seeds: int) -> int:
    """How many of the runs were killed."""
    # sums depend on the number of threads in their last bits
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, SCRIPT, folder, *map(str, seeds)], env=environment, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    return int(child.stdout)


def outcome(folder: Path) -> tuple[str, bytes, bytes]:
    place = latest(folder)
    assert place is not None
    assert damage(place) is None
    return place.name, (place / WEIGHTS).read_bytes(), (place / OPTIMIZER).read_bytes()
