"""Damaged checkpoints and failing disks: nothing damaged is gone on from, and no save harms what was saved before."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import bothways.training
from bothways.errors import InputError
from bothways.training import checkpoint
from bothways.training.checkpoint import FOLDER, MANIFEST, OPTIMIZER, STATE, WEIGHTS, damage, latest, newest_whole, save
from bothways.training.settings import Watch

from .test_checkpoint import at, trained
from .test_loop import final, timeless
from .toy import STEPS, run

SOURCE = Path(bothways.training.__file__).parents[2]
FILES = (WEIGHTS, OPTIMIZER, STATE, MANIFEST)


def flip(path: Path) -> None:
    """One bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5)


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run; it has kept the checkpoints of steps 18 and 20."""
    folder = tmp_path_factory.mktemp("straight")
    run(folder)
    return folder


@pytest.mark.parametrize("spoil", [flip, cut, empty, os.unlink])
@pytest.mark.parametrize("name", FILES)
def test_the_one_before_a_damaged_checkpoint_is_used(
    straight: Path, tmp_path: Path, name: str, spoil: Callable[[Path], None]
) -> None:
    folder, said = Path(shutil.copytree(straight, tmp_path / "run")), StringIO()
    newest = folder / FOLDER / f"step-{STEPS:07d}"
    spoil(newest / name)
    steps: list[int] = []
    run(folder, after_step=steps.append, watch=Watch(console=Console(file=said)))
    (line,) = (line for line in said.getvalue().splitlines() if "damaged" in line)
    assert line.startswith(f"{newest} is damaged (")
    assert name in line
    assert line.endswith(f"renamed damaged-{newest.name}; going on from step-0000018")
    assert "\ngoing on from step 18, " in said.getvalue()
    assert steps == [19, 20]
    assert final(folder) == final(straight)
    assert timeless(folder) == timeless(straight)
    assert sorted(os.listdir(folder / FOLDER)) == ["damaged-step-0000020", "step-0000018", "step-0000020"]


def test_without_a_whole_one_nothing_is_begun(straight: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(straight, tmp_path / "run"))
    for place in (folder / FOLDER).iterdir():
        flip(place / WEIGHTS)
    before = timeless(folder)
    with pytest.raises(InputError, match=r"no checkpoint is whole \(step-0000020: .*; step-0000018: .*remove that folder"):
        run(folder)
    assert timeless(folder) == before
    assert sorted(os.listdir(folder / FOLDER)) == ["step-0000018", "step-0000020"]


def test_a_manifest_of_other_files_is_damage(straight: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(straight, tmp_path / "run"))
    place = folder / FOLDER / f"step-{STEPS:07d}"
    assert damage(place) is None
    (place / MANIFEST).write_text("{}")
    assert damage(place) == "manifest.json does not name its files"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Makes the n-th call that changes the disk fail, and all after it: as a disk that has become full or read-only."""

    def arm(number: int) -> list[str]:
        monkeypatch.undo()
        calls: list[str] = []

        def failing_from(real: Callable[..., Any], name: str, half: Callable[..., None] | None = None) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                calls.append(name)
                if len(calls) > number:
                    if half:
                        half(*arguments)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(*arguments, **options)

            return call

        def half_tensors(tensors: object, path: Path) -> None:
            path.write_bytes(b"half of it")

        monkeypatch.setattr(checkpoint, "save_file", failing_from(checkpoint.save_file, "tensors", half_tensors))
        monkeypatch.setattr(Path, "write_text", failing_from(Path.write_text, "text", lambda path, text: path.write_bytes(b"{")))
        monkeypatch.setattr(Path, "mkdir", failing_from(Path.mkdir, "mkdir"))
        monkeypatch.setattr(os, "fsync", failing_from(os.fsync, "fsync"))
        monkeypatch.setattr(os, "rename", failing_from(os.rename, "rename"))
        return calls

    return arm


def test_a_failure_at_any_call_leaves_the_last_checkpoint(tmp_path: Path, failing: Callable[[int], list[str]]) -> None:
    module, optimizer = trained(seed=1)
    before = save(tmp_path, module, optimizer, at(3), keep=1)
    kinds, refusal = set(), ""
    for number in range(100):
        calls = failing(number)
        try:
            save(tmp_path, module, optimizer, at(6), keep=1)
        except InputError as error:
            refusal = str(error)
        kinds.add(calls[-1])
        if len(calls) <= number:
            break
        assert "No space left on device" in refusal
        found = newest_whole(tmp_path, pytest.fail)
        assert found is not None
        if found == before:
            assert [place.name for place in (tmp_path / FOLDER).iterdir() if place.name.startswith("step-")] == [before.name]
        else:  # it was all there; only the flush of its name, or the removal of the one before, has failed
            assert number >= calls.index("rename")
            shutil.rmtree(found)
            if not before.exists():
                break
    assert kinds >= {"tensors", "text", "mkdir", "fsync", "rename"}
    assert number > 10


@pytest.mark.parametrize("limit", [1, 600, 1500, 2500])
def test_a_file_that_the_system_cuts_short(tmp_path: Path, limit: int) -> None:
    """The system's own refusal, at a size within the weights or the optimizer's state."""
    module, optimizer = trained(seed=1)
    before = save(tmp_path, module, optimizer, at(3), keep=1)
    assert max(path.stat().st_size for path in before.iterdir()) > limit
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(InputError, match=r"cannot write .*step-0000006: .*File too large"):
            save(tmp_path, module, optimizer, at(6), keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path / FOLDER) == [before.name]
    assert damage(before) is None


FULL = """
import os, sys
from pathlib import Path
from toy import run
from bothways.errors import InputError
from bothways.training.checkpoint import damage, latest
folder = Path(sys.argv[1])
def fill(step):
    # once there is a checkpoint; again after every step, since removing an old one makes room, and to the last
    # page, since a checkpoint may be on its way to the disk meanwhile
    if latest(folder / "run") is None:
        return
    with open(folder / "filler", "ab", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            filler.truncate(max(0, filler.tell() - int(sys.argv[2])))
try:
    run(folder / "run", after_step=fill)
except InputError as error:
    print(error)
print(latest(folder / "run").name, damage(latest(folder / "run")))
(folder / "filler").unlink()
run(folder / "run")
print(latest(folder / "run").name, damage(latest(folder / "run")))
"""


@pytest.mark.parametrize("left", [0, 4096, 8192])
def test_a_disk_that_is_full(tmp_path: Path, left: int) -> None:
    """A small disk of its own, where the system lets us have one."""
    mounted = f"mount -t tmpfs -o size=512k tmpfs {tmp_path}"
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "sh", "-c", mounted], capture_output=True).returncode:
        pytest.skip("no mounts in a namespace of one's own here")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SOURCE), str(Path(__file__).parent)]), "OMP_NUM_THREADS": "1"}
    script = tmp_path.with_name("full.py")
    script.write_text(FULL)
    ran = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mounted} && exec {sys.executable} {script} {tmp_path} {left}"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    refused, before, after = ran.stdout.splitlines()
    assert "No space left on device" in refused
    assert before.startswith("step-")
    assert before.endswith(" None")
    assert after == f"step-{STEPS:07d} None"


def test_the_step_after_a_save_does_not_wait_for_the_disk(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write waits for a later step, so a loop that waited for it would never end."""
    real, later = checkpoint.write, threading.Event()
    done: list[int] = []

    def write(*arguments: Any) -> Path:
        assert later.wait(60)
        later.clear()
        return real(*arguments)

    def after(step: int) -> None:
        done.append(step)
        if step % 3 == 2 or step == STEPS - 1:
            later.set()
        if step == STEPS:  # the last save is not followed by a step
            threading.Timer(0.05, later.set).start()

    monkeypatch.setattr(checkpoint, "write", write)
    run(tmp_path, after_step=after)
    assert final(tmp_path) == final(straight)
    assert done == [*range(1, STEPS + 1)]


def test_what_fails_in_the_background_is_raised_at_a_later_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, steps = checkpoint.write, []

    def write(folder: Path, saved: checkpoint.Snapshot, keep: int) -> Path:
        if saved.position.step == 6:
            raise InputError("the disk is full")
        return real(folder, saved, keep)

    monkeypatch.setattr(checkpoint, "write", write)
    with pytest.raises(InputError, match="the disk is full"):
        run(tmp_path, after_step=steps.append)
    assert 6 <= steps[-1] <= 9  # by the next save at the latest
    place = latest(tmp_path)
    assert place is not None
    assert place.name == "step-0000003"
    assert damage(place) is None
