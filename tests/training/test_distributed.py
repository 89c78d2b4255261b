"""Several processes learn what one does: replicated or sharded, resumed in other numbers, killed and preempted."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import bothways.training
from bothways.errors import InputError
from bothways.training import log
from bothways.training.checkpoint import OPTIMIZER, WEIGHTS, damage, latest
from bothways.training.team import Team, team

from .toy import Toy, run

SCRIPT = Path(__file__).with_name("together.py")
SOURCE = Path(bothways.training.__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.slow


def together(processes: int, folder: Path, parallel: str, *torchrun: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the toy in so many processes."""
    words = [str(folder), parallel, *(f"{key}={value}" for key, value in options.items())]
    command = [sys.executable, str(SCRIPT), *words]
    if processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *torchrun]
        command = [sys.executable, *launch, str(SCRIPT), *words]
    folder.mkdir(exist_ok=True)
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120)


def learned(folder: Path) -> list[tuple[int, int, float, float]]:
    lines = [line for line in log.read(folder) if line["kind"] == "train"]
    return [(line["step"], line["tokens"], line["loss"], line["gradient_norm"]) for line in lines]


def assert_alike(one: Path, other: Path) -> None:
    """The same steps of the same tokens; losses, norms, weights and moments within rounding."""
    assert [line[:2] for line in learned(one)] == [line[:2] for line in learned(other)]
    for mine, yours in zip(learned(one), learned(other), strict=True):
        assert mine[2:] == pytest.approx(yours[2:], abs=1e-5)
    places = latest(one), latest(other)
    assert places[0] is not None
    assert places[1] is not None
    assert places[0].name == places[1].name
    for name in (WEIGHTS, OPTIMIZER):
        mine, yours = load_file(places[0] / name), load_file(places[1] / name)
        assert mine.keys() == yours.keys()
        for key in mine:
            torch.testing.assert_close(mine[key], yours[key], atol=2e-5, rtol=1e-4, msg=key)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Path]]:
    """One process; by the number of micro-batches a step."""
    folders = {}
    for accumulate in (1, 2, 3, 4):
        folders[accumulate] = tmp_path_factory.mktemp("alone")
        ran = together(1, folders[accumulate], "replicate", accumulate=accumulate, dropout=0.2 if accumulate == 2 else 0)
        assert ran.returncode == 0, ran.stderr
    return folders


@pytest.mark.parametrize(
    ("processes", "parallel", "accumulate"),
    [
        (2, "replicate", 2),
        (2, "replicate", 3),
        (2, "replicate", 1),
        (4, "replicate", 4),
        (2, "shard", 3),
        (2, "shard", 1),
        (4, "shard", 4),
    ],
)
def test_processes_change_nothing(alone: dict[int, Path], tmp_path: Path, processes: int, parallel: str, accumulate: int) -> None:
    """Also where processes have unequal shares of a step, or none. Replicated, even dropout is the same."""
    ran = together(processes, tmp_path, parallel, accumulate=accumulate, dropout=0.2 if accumulate == 2 else 0)
    assert ran.returncode == 0, ran.stderr
    assert_alike(tmp_path, alone[accumulate])
    looked = [
        [line["metrics"] for line in log.read(one) if line["kind"] == "evaluation"] for one in (tmp_path, alone[accumulate])
    ]
    assert len(looked[0]) == len(looked[1]) == 4
    for mine, yours in zip(*looked, strict=True):  # the module that is looked at is the one that is trained
        assert mine["weight"] == pytest.approx(yours["weight"], abs=1e-4)


@pytest.mark.parametrize("order", [(1, 2, 1), (2, 1, 2)])
def test_resumed_with_other_numbers_of_processes(alone: dict[int, Path], tmp_path: Path, order: tuple[int, ...]) -> None:
    """And from copies to shards and back. The first two are preempted behind a step of their own."""
    first, second, third = order
    for processes, step in ((first, 5), (second, 12)):
        ran = together(processes, tmp_path, "replicate", accumulate=3, term=step)
        assert "stopped after step" in ran.stdout, ran.stderr
    assert together(third, tmp_path, "shard", accumulate=3).returncode == 0
    assert_alike(tmp_path, alone[3])


def test_a_killed_process_is_started_again_by_torchrun(alone: dict[int, Path], tmp_path: Path) -> None:
    ran = together(2, tmp_path, "replicate", "--max-restarts", "2", accumulate=3, kill=8)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "killed").exists()
    assert_alike(tmp_path, alone[3])


def test_sigterm_to_torchrun_saves_once(alone: dict[int, Path], tmp_path: Path) -> None:
    ran = together(2, tmp_path, "replicate", accumulate=3, term=7)
    place = latest(tmp_path)
    assert place is not None
    assert damage(place) is None
    assert ran.stdout.count(f"saved {place}; the same command goes on from there") == 2, ran.stderr
    assert 7 <= int(place.name.removeprefix("step-")) < 20
    assert together(2, tmp_path, "shard", accumulate=3).returncode == 0
    assert_alike(tmp_path, alone[3])


@pytest.mark.parametrize(
    "names",
    [("albert", "bert", "modernbert"), ("longformer", "m2_bert", "deberta-v2"), ("whole-embedding", "disentangled-tables")],
)
def test_shared_modules_and_tables_survive_sharding(names: tuple[str, ...]) -> None:
    """ALBERT's layers, tied heads, tables of positions that all layers share, two networks on one embedding: nothing changes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(SOURCE), str(Path(__file__).parents[2])])}
    script = str(SCRIPT.with_name("spread_models.py"))
    ran = subprocess.run([*launch, script, *names], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    found = {name: float(difference) for name, difference in map(str.split, ran.stdout.splitlines())}
    assert found.keys() == set(names)
    assert max(found.values()) < 1e-5


def test_whole_batch_losses_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Coupled(Toy):
        whole_batch = True

    monkeypatch.setattr("bothways.training.loop.team", lambda: Team(0, 2))
    with pytest.raises(InputError, match="Coupled couples all samples of a step, which 2 processes would divide"):
        run(tmp_path, module=Coupled(), changes={"accumulate": 1})
    assert not list(tmp_path.iterdir())


def test_alone_without_torchrun() -> None:
    assert (team().rank, team().size, team().first) == (0, 1, True)
    assert team().total([1.5, math.inf]) == [1.5, math.inf]
