"""Side-by-side timing: contenders in turn, several rounds, medians of ratios; real texts; and the JSON record."""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Seconds of each round of one contender."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, Timing]:
    """Run every contender once a round, in turn, so that a slow spell of the machine hits them all."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warmup + rounds):
        for name, contender in contenders.items():
            begin = time.perf_counter()
            contender()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - begin)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def ratio(slow: Timing, fast: Timing) -> float:
    """Median over the rounds of how many times faster `fast` was than `slow` in that round."""
    return statistics.median(a / b for a, b in zip(slow.seconds, fast.seconds, strict=True))


def in_turn(worker: Callable[..., None], names: Iterable[str], given: Sequence[Any], rounds: int) -> dict[str, list[Any]]:
    """What each contender tells after each of its turns, which they take one after another, each in a process of its own.

    `worker(name, *given, pipe)` sends once when it is set up. Then a turn begins when it receives a truth, and ends
    when it sends.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name in names:
        pipes[name], other = context.Pipe()
        context.Process(target=worker, args=(name, *given, other), daemon=True).start()
        pipes[name].recv()
    told: dict[str, list[Any]] = {name: [] for name in pipes}
    for _ in range(rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            told[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    return told


class Turns:
    """For a contender of `in_turn` that is a whole loop: held after every `steps` steps, when it tells its tokens and seconds.

    Its first turn goes with all that is set up, and is not told.
    """

    def __init__(self, pipe: Connection, steps: int) -> None:
        self.pipe, self.steps, self.done, self.tokens, self.told = pipe, steps, 0, 0, 0
        self.begin = time.perf_counter()

    def count(self, tokens: int) -> None:
        self.tokens += tokens

    def after(self, _step: int = 0) -> None:
        self.done += 1
        if self.done % self.steps:
            return
        turn = (self.tokens - self.told, time.perf_counter() - self.begin)
        self.pipe.send(turn)
        self.told = self.tokens
        if not self.pipe.recv():
            raise SystemExit
        self.begin = time.perf_counter()


def times_faster(speeds: Mapping[str, Sequence[float]], one: str, than: str) -> float:
    """Median over the rounds of one contender's speed over another's."""
    return round(statistics.median(a / b for a, b in zip(speeds[one], speeds[than], strict=True)), 2)


def rates(speeds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Tokens a second of each contender, and of each round."""
    return {
        "tokens_per_second": {name: round(statistics.median(values)) for name, values in speeds.items()},
        "rounds": {name: [round(value) for value in values] for name, values in speeds.items()},
    }


def ask_how_to_finetune(parser: argparse.ArgumentParser, seeds: int, lr: float) -> None:
    """Options that `evaluated` reads."""
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=lr)


def evaluated(models: Mapping[str, Path], tasks: Mapping[str, Path], options: argparse.Namespace) -> dict[str, Any]:
    """What `bothways evaluate` says of each model, two at a time on a core each; what WORK/evaluated has is not done again."""
    asked = [part for task, data in tasks.items() for part in ("--task", task, "--data", str(data))]
    settings = ["--seeds", str(options.seeds), "--epochs", str(options.epochs), "--lr", str(options.lr), "--json"]

    def of(name: str) -> Any:
        out = ["--out", str(options.work / "evaluated" / name)]
        told = subprocess.run(
            [sys.executable, "-m", "bothways", "evaluate", str(models[name]), *asked, *settings, *out],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        return json.loads(told.stdout)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(models, pool.map(of, models), strict=True))


def docstrings(count: int) -> list[str]:
    """Docstrings of the standard library, a fixed random choice."""
    found: set[str] = set()
    for file in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in file.parts or "test" in file.parts:
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        nodes = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Module))
        found.update(text for node in nodes if (text := ast.get_docstring(node)))
    return random.Random(0).sample(sorted(found), count)


def record(name: str, result: Mapping[str, Any]) -> Path:
    """Write a benchmark's result with what it takes to repeat it."""
    import torch

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    versions = {
        module: __import__(module).__version__ for module in ("torch", "transformers", "sklearn") if module in sys.modules
    }
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    script, *given = sys.argv
    # what is worth repeating is which file, not where it happened to lie
    named = [Path(one).name if Path(one).is_absolute() else one for one in given]
    about = {
        "command": " ".join(["python", str(Path(script).resolve().relative_to(RESULTS.parent.parent.resolve())), *named]),
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": versions,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**about, **result}, indent=2) + "\n", encoding="utf-8")
    return path
