"""The speedrun's board: time to each loss, from the curves in the work folder and the paired speeds.

Time is the tokens to a loss, read between two evaluations on a straight line, over the tokens per second of
`paired.py`. A baseline's best learning rate is chosen for each loss; an entry is the mean over its seeds, and
counts at a loss that every seed has reached.

    python benchmarks/speedrun/board.py --work build/speedrun
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table
from task import prepared

sys.path.append(str(Path(__file__).parent.parent))
from harness import RESULTS, record

# nats below a model of word frequencies
BELOW = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
Curve: TypeAlias = list[tuple[float, float]]  # tokens, nats


def curve(path: Path) -> Curve:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["tokens"], line["loss"]) for line in lines]


def tokens_to(level: float, points: Curve) -> float | None:
    """Where the curve first comes down to a loss; None where it does not."""
    before = points[0]
    for point in points:
        if point[1] <= level:
            (x, high), (y, low) = before, point
            return y if high <= low else x + (y - x) * (high - level) / (high - low)
        before = point
    return None


def contenders(work: Path) -> dict[str, dict[str, Curve]]:
    """The curves of each contender, by run: `baseline` by learning rate, entries by seed."""
    found: dict[str, dict[str, Curve]] = {}
    for path in sorted(work.glob("baseline-*/curve.jsonl")):
        found.setdefault("baseline", {})[path.parent.name] = curve(path)
    for path in sorted(work.glob("runs/*/curve.jsonl")):
        entry = path.parent.name.partition("-seed")[0]
        found.setdefault(entry, {})[path.parent.name] = curve(path)
    return found


def tokens(name: str, runs: dict[str, Curve], level: float) -> list[float] | None:
    """To a loss, of every seed; of the baseline, of its best learning rate."""
    each = [tokens_to(level, points) for points in runs.values()]
    reached = [one for one in each if one is not None]
    if name == "baseline":
        return [min(reached)] if reached else None
    return reached if len(reached) == len(each) else None


def rows(found: dict[str, dict[str, Curve]], speeds: dict[str, float], levels: Sequence[float]) -> dict[str, dict[str, Any]]:
    """For each contender, the seconds to each loss; and its runs' last losses."""
    table: dict[str, dict[str, Any]] = {}
    for name, runs in found.items():
        entry = name if name == "baseline" else name.rsplit("-", 1)[0]
        if entry not in speeds:
            continue
        seconds: dict[str, list[float]] = {}
        for level in levels:
            if (needed := tokens(name, runs, level)) is not None:
                seconds[f"{level:.3f}"] = [round(one / speeds[entry], 1) for one in needed]
        last = {run: round(points[-1][1], 4) for run, points in runs.items()}
        table[name] = {"tokens_per_second": speeds[entry], "seconds": seconds, "last": last}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    unigram = prepared(options.work).unigram
    levels = [round(unigram - below, 3) for below in BELOW]
    speeds = json.loads((RESULTS / "speedrun_paired.json").read_text())["tokens_per_second"]
    table = rows(contenders(options.work), speeds, levels)
    printed = Table("", "tokens/s", *(f"{level:.2f}" for level in levels), "last", title="Seconds to a loss")
    for name, row in table.items():
        times = [row["seconds"].get(f"{level:.3f}") for level in levels]
        cells = ["-" if one is None else f"{statistics.mean(one):,.0f}" for one in times]
        printed.add_row(name, f"{row['tokens_per_second']:,}", *cells, f"{min(row['last'].values()):.3f}")
    Console().print(printed)
    print(record("speedrun", {"unigram": unigram, "contenders": table}))


if __name__ == "__main__":
    main()
