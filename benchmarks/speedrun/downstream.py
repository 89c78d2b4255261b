"""What runs of the speedrun know when they are fine-tuned: SST-2 and banking77, by the same `bothways evaluate`.

Runs are named as their folders in `WORK/runs`, whose family can be saved; those that differ in the seed alone are one contender.
A run's score is the mean of its fine-tunings; intervals and the difference of the first contender from each other one are over
the runs' seeds (Welch).

    python benchmarks/speedrun/downstream.py --work build/speedrun --sst2 SST-2/ --banking77 banking77/ RUN [RUN ...]
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))
from harness import ask_how_to_finetune, evaluated, record

from bothways.evaluation.significance import summary, welch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--sst2", type=Path, required=True)
    parser.add_argument("--banking77", type=Path, required=True)
    ask_how_to_finetune(parser, seeds=2, lr=1e-3)
    options = parser.parse_args()
    tasks = {"sst2": options.sst2, "banking77": options.banking77}
    told = evaluated({run: options.work / "runs" / run / "model" for run in options.runs}, tasks, options)
    scores: dict[str, dict[str, list[float]]] = {task: defaultdict(list) for task in tasks}
    for run, one in told.items():
        for task, seeds in one["seeds"].items():
            scores[task][run.partition("-seed")[0]].append(fmean(next(iter(each.values())) for each in seeds))
    result = {task: compared(sides) for task, sides in scores.items()}
    for task, one in result.items():
        print(task, one)
    print(record("speedrun_downstream", result))


def compared(sides: dict[str, list[float]]) -> dict[str, Any]:
    """Scores by contender, their intervals, and how the first differs from the others."""
    first, *others = sides
    return {
        "scores": dict(sides),
        "mean": {name: asdict(summary(values)) for name, values in sides.items() if len(values) > 1},
        "difference": {f"{first} - {name}": asdict(welch(sides[first], sides[name])) for name in others},
    }


if __name__ == "__main__":
    main()
