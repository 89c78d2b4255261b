"""The speedrun's board: time to each loss, from the curves in the work folder and the paired speeds.

Time is the tokens to a loss, read between two evaluations on a straight line, over the tokens per second of
`paired.py`, and the seconds that went by before the first step. A baseline's best learning rate is chosen for each loss;
an entry, a budget and a rate are the mean over their seeds, and count at a loss that every seed has reached. Where a
baseline never came to a loss, ">" and the time it was given; where a run's first evaluation was below it already, the other
seeds count, and if there is none, "<" and the time of that evaluation.

`--sooner A B`: and how much sooner B has come to A's last loss (the mean of its seeds) than A.

    python benchmarks/speedrun/board.py --work build/speedrun [--sooner modernbert-batch8-6144000-lr0.002 near-2560000]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table
from task import prepared

sys.path.append(str(Path(__file__).parent.parent))
from harness import RESULTS, record

# the names that `run.py` gives
_RUN = re.compile(r"(?P<entry>.+?)(?P<budget>-\d{5,})-seed\d+(?P<rate>-lr.+)?")
# entries whose steps are another's, and with them its speed
_STEPS_OF = {"near-quick": "near"}
# nats below a model of word frequencies
BELOW = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
Curve: TypeAlias = list[tuple[float, float]]  # tokens, nats


def curve(path: Path) -> Curve:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["tokens"], line["loss"]) for line in lines]


def tokens_to(level: float, points: Curve) -> float | None:
    """Where the curve first comes down to a loss (at its first point at the latest); None where it does not."""
    before = points[0]
    for point in points:
        if point[1] <= level:
            (x, high), (y, low) = before, point
            return y if high <= low else x + (y - x) * (high - level) / (high - low)
        before = point
    return None


@dataclass(frozen=True)
class Contender:
    """Runs that count as one.

    Attributes:
        name: of its speed: an entry, or a baseline with its network.
        runs: curves by the names of their folders, a baseline's one for each learning rate, an entry's for each seed.
        before: seconds that went by before the first step, of each run that tells them.
    """

    name: str
    baseline: bool
    runs: dict[str, Curve] = field(default_factory=dict)
    before: list[float] = field(default_factory=list)

    def tokens(self, level: float) -> list[float] | None:
        """To a loss, of every seed; of a baseline, of its best learning rate."""
        seen = [points for points in self.runs.values() if points[0][1] > level]
        each = [tokens_to(level, points) for points in seen or self.runs.values()]
        reached = [one for one in each if one is not None]
        if self.baseline:
            return [min(reached)] if reached else None
        return reached if len(reached) == len(each) else None

    def at_most(self, level: float) -> bool:
        """Whether all runs had passed a loss when they were first evaluated."""
        return all(points[0][1] <= level for points in self.runs.values())

    @property
    def longest(self) -> float:
        """Tokens of its longest run."""
        return max(points[-1][0] for points in self.runs.values())


def contenders(work: Path) -> dict[str, Contender]:
    found: dict[str, Contender] = {}
    for path in sorted(work.glob("baseline-*/curve.jsonl")):
        name = path.parent.name.partition("-lr")[0]
        found.setdefault(name, Contender(name, baseline=True)).runs[path.parent.name] = curve(path)
    for path in sorted(work.glob("runs/*/curve.jsonl")):
        if told := _RUN.fullmatch(path.parent.name):
            name = told["entry"] + told["budget"] + (told["rate"] or "")
            one = found.setdefault(name, Contender(told["entry"], baseline=False))
            one.runs[path.parent.name] = curve(path)
            if (before := path.with_name("before.json")).exists():
                one.before.append(json.loads(before.read_text())["seconds"])
    return found


def row(one: Contender, speed: float, levels: Sequence[float]) -> dict[str, Any]:
    """The seconds to each loss, or those in which it was not reached; and the last losses."""
    before = statistics.mean(one.before) if one.before else 0.0
    seconds = {
        f"{level:.3f}": [round(before + count / speed, 1) for count in needed]
        for level in levels
        if (needed := one.tokens(level)) is not None
    }
    last = {run: round(points[-1][1], 4) for run, points in one.runs.items()}
    given = round(before + one.longest / speed, 1)
    at_most = [f"{level:.3f}" for level in levels if one.at_most(level)]
    curves = {run: ", ".join(f"{tokens:.0f}: {loss:.4f}" for tokens, loss in points) for run, points in one.runs.items()}
    return {
        "tokens_per_second": speed, "before": round(before, 1), "seconds": seconds, "at_most": at_most, "given": given,
        "curves": curves, "last": last, "mean_last": round(statistics.mean(last.values()), 4),
    }  # fmt: skip


def sooner(one: Contender, other: Contender, speeds: dict[str, float]) -> dict[str, float | list[float] | None]:
    """How many times sooner than `one` the `other` has come to its last loss, seed by seed and on the mean."""
    level = statistics.mean(points[-1][1] for points in one.runs.values())
    told = row(other, speed_of(other, speeds), [level])["seconds"].get(f"{level:.3f}")
    given = row(one, speed_of(one, speeds), [])["given"]
    ratios = [round(given / seconds, 2) for seconds in told or ()]
    mean = round(given / statistics.mean(told), 2) if told else None
    return {"loss": round(level, 4), "seconds": given, "times": ratios, "mean": mean}


def speed_of(one: Contender, speeds: dict[str, float]) -> float:
    return speeds[_STEPS_OF.get(one.name, one.name)]


def cell(told: dict[str, Any], level: float, baseline: bool) -> str:
    times = told["seconds"].get(f"{level:.3f}")
    if times is None:
        return f">{told['given']:,.0f}" if baseline else "-"
    return ("<" if f"{level:.3f}" in told["at_most"] else "") + f"{statistics.mean(times):,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sooner", nargs=2, action="append", default=[], metavar=("A", "B"))
    options = parser.parse_args()
    unigram = prepared(options.work).unigram
    levels = [round(unigram - below, 3) for below in BELOW]
    speeds = json.loads((RESULTS / "speedrun_paired.json").read_text())["tokens_per_second"]
    found = {name: one for name, one in contenders(options.work).items() if _STEPS_OF.get(one.name, one.name) in speeds}
    table = {name: row(one, speed_of(one, speeds), levels) for name, one in found.items()}
    printed = Table("", "tokens/s", *(f"{level:.2f}" for level in levels), "last", title="Seconds to a loss")
    for name, told in table.items():
        baseline = found[name].baseline
        cells = [cell(told, level, baseline) for level in levels]
        last = min(told["last"].values()) if baseline else told["mean_last"]
        printed.add_row(name, f"{told['tokens_per_second']:,}", *cells, f"{last:.3f}")
    Console(width=110).print(printed)  # names are long
    if odd := [name for pair in options.sooner for name in pair if name not in found or found[name].baseline]:
        parser.error(f"--sooner: {odd[0]} is no entry's runs; there are {', '.join(n for n in found if not found[n].baseline)}")
    pairs = {f"{one} / {other}": sooner(found[one], found[other], speeds) for one, other in options.sooner}
    for pair, told in pairs.items():
        print(pair, told)
    print(record("speedrun", {"unigram": unigram, "contenders": table, "sooner": pairs}))


if __name__ == "__main__":
    main()
