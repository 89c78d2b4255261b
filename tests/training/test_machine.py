"""What a run's log says of its machine, and what memory there is."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from bothways.training import log, machine

from .toy import run

CPU = torch.device("cpu")


def test_a_run_says_which_machine_it_went_on(tmp_path: Path) -> None:
    run(tmp_path)
    lines = log.read(tmp_path)
    assert [line["kind"] for line in lines].count("machine") == 1
    told = lines[1]
    assert (lines[0]["kind"], told["kind"], told["step"]) == ("train", "machine", 2)
    assert (told["device"], told["versions"]["torch"], told["rate"], told["peak"]) == ("cpu", torch.__version__, None, None)
    assert told["name"] == machine.processor()
    assert all(line["memory"] > 1 << 20 for line in lines if line["kind"] == "train")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 GB, 6 of them free, and a container that may have 4 and uses 1."""
    (tmp_path / "meminfo").write_text("MemTotal:        8000 kB\nMemFree:          100 kB\nMemAvailable:    6000 kB\n")
    (tmp_path / "max").write_text("4096000\n")
    (tmp_path / "current").write_text("1024000\n")
    monkeypatch.setattr(machine, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_LIMITS", ((tmp_path / "max", tmp_path / "current"),))
    return tmp_path


def test_a_container_has_less_than_the_machine(kernel: Path) -> None:
    assert (machine.memory_of(CPU), machine.free_memory(CPU)) == (4096000, 3072000)


@pytest.mark.parametrize("limit", ["max\n", str((1 << 63) - 4096)])
def test_a_container_without_a_limit(kernel: Path, limit: str) -> None:
    (kernel / "max").write_text(limit)
    assert (machine.memory_of(CPU), machine.free_memory(CPU)) == (8000 * 1024, 6000 * 1024)


def test_a_system_that_does_not_say(kernel: Path) -> None:
    (kernel / "meminfo").unlink()
    assert (machine.memory_of(CPU), machine.free_memory(CPU)) == (None, None)


def test_memory_of_this_process() -> None:
    before, _ = machine.memory_in_use(), machine.peak_memory(CPU)
    assert before is not None
    size = 64 << 20
    # of the system itself: an allocator may have so much left over from other tests
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as kept:
        kept.write(b"1" * size)
        after, peak = machine.memory_in_use(), machine.peak_memory(CPU)
    assert after is not None
    assert peak is not None
    assert after - before > 0.9 * size
    assert peak >= after - (1 << 20)
