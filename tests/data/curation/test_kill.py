"""`kill -9` at any moment of `bothways curate`, then the same command: the bytes are those of a run left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.data.curation.corpus import contents, edited, prose, write_lines

import bothways

pytest.importorskip("datatrove", reason="pip install 'bothways[data]'")
pytest.importorskip("rensa", reason="pip install 'bothways[data]'")

SOURCE = str(Path(bothways.__file__).parents[1])
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([SOURCE, os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
}


def corpus(folder: Path) -> Path:
    texts = [prose(seed) for seed in range(120)]
    texts += [edited(texts[seed], seed) for seed in range(0, 120, 7)] + texts[:20]
    for number in range(4):
        write_lines(folder / f"{number}.jsonl", texts[number::4])
    return folder


def command(texts: Path, out: Path, workers: int) -> list[str]:
    settings = ["--language", "eng", "--workers", str(workers), "--set", "part_bytes=20000", "--set", "steps.4.bands=4"]
    return [sys.executable, "-m", "bothways.cli", "curate", str(texts), "--out", str(out), *settings]


def started(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(arguments, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(arguments: list[str]) -> None:
    subprocess.run(arguments, env=ENVIRONMENT, check=True, capture_output=True)


def pieces(out: Path) -> int:
    """How much work has been done."""
    return sum(1 for _ in out.glob(".work/*/logs/*/completions/*"))


@pytest.mark.slow
@pytest.mark.parametrize("group", [True, False], ids=["with its workers", "the command alone"])
def test_killed_curation_goes_on_to_the_same_bytes(tmp_path: Path, group: bool) -> None:
    texts = corpus(tmp_path / "texts")
    finish(command(texts, tmp_path / "straight", 1))
    expected = contents(tmp_path / "straight")
    draw = random.SystemRandom()
    for attempt in range(2):
        out = tmp_path / f"killed-{attempt}"
        moments = []
        for _ in range(3):
            child = started(command(texts, out, draw.choice([1, 2])))
            begin, wanted = pieces(out), draw.randint(1, 9)
            while pieces(out) < begin + wanted and child.poll() is None:
                time.sleep(0.005)
            time.sleep(draw.random() * 0.2)
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL) if group else child.kill()
            child.communicate(timeout=60)  # its pipe is closed when no process that it started lives on
            moments.append((begin, pieces(out)))
        finish(command(texts, out, 2))
        assert contents(out) == expected, moments


@pytest.mark.slow
def test_half_written_files_are_not_taken_for_whole_ones(tmp_path: Path) -> None:
    texts = corpus(tmp_path / "texts")
    out = tmp_path / "out"
    child = started(command(texts, out, 1))
    while pieces(out) < 6:
        assert child.poll() is None, child.communicate()[1].decode()
        time.sleep(0.005)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    [work] = out.glob(".work/*")
    # files under their temporary names, as a killed process leaves them
    for path in (next(work.rglob("*.arrow")), next(work.glob("tallies/*/*.json")), work / "data" / "000000.jsonl.gz"):
        path.parent.mkdir(exist_ok=True)
        (path.parent / f".partial.0.{path.name}").write_bytes(path.read_bytes() if path.exists() else b"half")
    done = subprocess.run(command(texts, out, 1), env=ENVIRONMENT, check=True, capture_output=True, text=True)
    assert "going on: " in done.stderr
    straight = tmp_path / "straight"
    finish(command(texts, straight, 2))
    assert contents(out) == contents(straight)
