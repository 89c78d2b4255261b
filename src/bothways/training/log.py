"""`log.jsonl`: one JSON object a line, of four kinds, in the order of their steps.

    {"kind": "train", "step", "tokens", "seconds", "loss", "terms", "metrics", "lr", "gradient_norm",
     "tokens_per_second", "filler", "gemm_share", "gemm_rate", "memory"}
    {"kind": "evaluation", "step", "tokens", "seconds", "metrics"}
    {"kind": "samples", "step", "tokens", "seconds", "rows"}
    {"kind": "machine", "step", "tokens", "seconds", "device", "name", "cores", "threads", "memory", "system",
     "versions", "rate", "peak"}

A train line covers the steps since the line before it: means are of all their sums over all their
counts, and `gradient_norm` is their mean. `filler` is its share of all tokens processed; no other figure
counts it. `gemm_share` is the share reached of the machine's rate of matrix products, `gemm_rate` that rate as
sampled between these steps (operations over time, FLOP/s; null where none was due), `memory` the most bytes that the
process has held so far. A machine line follows the first train line of each process.
A number that is not finite is written as null.

A run of stages has a log for each. Read together, their steps, tokens and seconds are counted through, and every line
has the name of its `stage`.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

from bothways.errors import InputError
from bothways.files import reported, sync, write_text
from bothways.training import record
from bothways.training.step import loss, means

NAME = "log.jsonl"
Line = dict[str, Any]


class Log:
    """Appends lines to a run's log; a line is in the file once `write` returns.

    Opening it removes the lines past `step`, which a killed run wrote after its last checkpoint; with no step done, all.

    Raises:
        InputError: a damaged log, or one that cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / NAME
        if self.path.exists():
            lines = [line for line in read(folder) if 0 < step >= line["step"]]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines))
        with reported(str(self.path), "nothing was trained"):
            self._file = self.path.open("ab", buffering=0)

    def write(self, kind: str, step: int, tokens: int, seconds: float, **fields: Any) -> None:
        line = {"kind": kind, "step": step, "tokens": tokens, "seconds": round(seconds, 3)} | fields
        data = (json.dumps(_finite(line), allow_nan=False) + "\n").encode()
        with reported(str(self.path), "the checkpoints are untouched"):
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        """Make what was written survive a loss of power; called before each checkpoint."""
        sync(self.path)

    def close(self) -> None:
        self._file.close()


class Window:
    """The steps since the last train line."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self.clear()

    def clear(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, float] = defaultdict(float)
        self._norm = self._seconds = self._flops = 0.0
        self._rates: list[float] = []
        self._tokens = self._filler = self.steps = 0

    def add(
        self,
        sums: Mapping[str, float],
        counts: Mapping[str, float],
        norm: float,
        tokens: int,
        seconds: float,
        flops: float,
        filler: int = 0,
    ) -> None:
        for name in sums:
            self._sums[name] += sums[name]
            self._counts[name] += counts[name]
        self._norm += norm
        self._seconds += seconds
        self._flops += flops
        self._tokens += tokens
        self._filler += filler
        self.steps += 1

    def sampled(self, rate: float | None) -> None:
        """A sample of the machine's rate, if there was one."""
        if rate is not None:
            self._rates.append(rate)

    def fields(self, lr: float, rate: float | None) -> Line:
        """What a train line says of these steps; `rate` is the machine's, in FLOP/s.

        The backward pass has twice the matrix products of the forward pass, hence 3.
        """
        values = means(self._sums, self._counts)
        return {
            "loss": loss(self._weights, values),
            "terms": {name: value for name, value in values.items() if name in self._weights},
            "metrics": {name: value for name, value in values.items() if name not in self._weights},
            "lr": lr,
            "gradient_norm": self._norm / self.steps,
            "tokens_per_second": self._tokens / self._seconds if self._seconds else None,
            "filler": self._filler / (self._tokens + self._filler) if self._tokens else 0.0,
            "gemm_share": 3 * self._flops / self._seconds / rate if rate and self._seconds else None,
            "gemm_rate": harmonic_mean(self._rates) if self._rates else None,
        }


def read(folder: Path) -> list[Line]:
    """A run's log, or those of its stages as one. A last line that a kill cut short is left out.

    Raises:
        InputError: a line that is not one of this log; named by its number.
    """
    path = folder / NAME
    if not path.exists() and (known := record.read(folder)) and known.stages:
        return _through([(stage, read(folder / stage)) for stage in known.stages if (folder / stage / NAME).exists()])
    texts = path.read_text(encoding="utf-8", errors="replace").split("\n")
    lines = []
    for number, text in enumerate(texts[:-1], start=1):  # what follows the last newline is unfinished
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict) or not line.keys() >= {"kind", "step", "tokens", "seconds"}:
            raise InputError(f"{path}, line {number}: not a line of a training log; remove the line")
        lines.append(line)
    return lines


def _through(logs: Sequence[tuple[str, list[Line]]]) -> list[Line]:
    """The lines of all stages, in which each goes on from where the one before ended."""
    lines: list[Line] = []
    before: dict[str, float] = dict.fromkeys(("step", "tokens", "seconds"), 0)
    for stage, own in logs:
        lines += [{**line, **{key: before[key] + line[key] for key in before}, "stage": stage} for line in own]
        before = {key: lines[-1][key] for key in before} if own else before
    return lines


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
