"""Tokens a second of the baselines and of entries, their loops held and let go on in turn: what turns tokens into time.

python benchmarks/speedrun/paired.py CORPUS.jsonl.gz --work build/speedrun --entries modernbert muon [--rounds 7] [--steps 10]
"""

from __future__ import annotations

import argparse
import shutil
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from baseline import BATCH, NETWORKS, trainer
from entries import ENTRIES
from run import run
from task import LENGTH, prepare
from transformers import TrainerCallback

sys.path.append(str(Path(__file__).parent.parent))
from harness import Turns, in_turn, rates, record, times_faster

BASELINE = "baseline-"


class Held(TrainerCallback):
    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.turns.count(BATCH * LENGTH)
        self.turns.after()


def worker(name: str, corpus: Path, work: Path, steps: int, rounds: int, pipe: Connection) -> None:
    """One side's loop, as it runs in the speedrun but for the evaluations."""
    torch.set_num_threads(2)
    task, turns, folder = prepare(corpus, work), Turns(pipe, steps), work / "paired" / name
    count = steps * (rounds + 2)
    if name.startswith(BASELINE):
        trainer(name.removeprefix(BASELINE), task, folder, work / "tokenizer", 1e-3, count, [Held(turns)]).train()
        return
    entry = ENTRIES[name]

    def after(step: int) -> None:
        turns.count(entry.batch * LENGTH)
        turns.after(step)

    run(entry, task, count * entry.batch * LENGTH, 0, folder, 0, after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--entries", nargs="+", choices=ENTRIES, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    prepare(options.corpus, options.work)
    shutil.rmtree(options.work / "paired", ignore_errors=True)
    baselines = [BASELINE + network for network in NETWORKS]
    names = [*baselines, *options.entries]
    told = in_turn(worker, names, (options.corpus, options.work, options.steps, options.rounds), options.rounds)
    speeds = {name: [tokens / seconds for tokens, seconds in rows] for name, rows in told.items()}
    ratios = {f"times_{than}": {name: times_faster(speeds, name, than) for name in options.entries} for than in baselines}
    result = {**ratios, **rates(speeds)}
    for key, value in result.items():
        print(f"{key}: {value}")
    print(record("speedrun_paired", result))


if __name__ == "__main__":
    main()
