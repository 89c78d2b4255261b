"""Whole training loops beside each other: ours, and transformers' Trainer on run_mlm's two data paths.

The model, texts and tokenizer of `masked_lm_step.py`, which times bare steps; here each side has its loop about
them: loading, schedule, clipping, logging. A loop is held after every few steps, and they go on in turn, each in
a process of its own. What is counted is real tokens, not padding. Needs `pip install accelerate`.

    python benchmarks/trainer.py CORPUS.jsonl[.gz] [--rounds 7] [--steps 8]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from harness import Turns, rates, record, times_faster
from masked_lm_step import ARCHITECTURE, ROWS, our_parts, own_folder, raced, their_parts

LR = 1e-4


def ours(corpus: Path, folder: Path, steps: int, turns: Turns) -> None:
    from bothways.training.loop import train
    from bothways.training.optimizer import AdamW
    from bothways.training.schedule import Fraction, Linear, Steps
    from bothways.training.settings import TrainingConfig

    objective, loader = our_parts(corpus, folder)
    forward = objective.forward

    def counted(inputs: Any) -> Any:
        turns.count(inputs.tokens)
        return forward(inputs)

    objective.forward = counted
    settings = TrainingConfig(
        optimizer=AdamW(lr=LR, weight_decay=0.0),
        schedule=Linear(warmup=Fraction(of=0.0)),
        budget=Steps(count=steps),
        log_every=50,
    )
    train(objective, loader.open, settings, folder / "run", device="cpu", run="{}", after_step=turns.after)


def theirs(corpus: Path, folder: Path, steps: int, turns: Turns, grouped: bool) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    model, rows, collate = their_parts(corpus, folder, grouped)

    class Held(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            turns.after()

    def counted(samples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        batch = collate(samples)
        turns.count(int(batch["attention_mask"].sum()))
        return batch

    arguments = TrainingArguments(
        output_dir=str(folder / "run"), per_device_train_batch_size=ROWS, learning_rate=LR, max_steps=steps, logging_steps=50,
        report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    Trainer(model, arguments, counted, rows, callbacks=[Held()]).train()


CONTENDERS: dict[str, Callable[[Path, Path, int, Turns], None]] = {
    "bothways": ours,
    "trainer_padded": lambda *given: theirs(*given, grouped=False),
    "trainer_group_texts": lambda *given: theirs(*given, grouped=True),
}


def worker(name: str, corpus: Path, folder: Path, steps: int, rounds: int, pipe: Connection) -> None:
    torch.set_num_threads(2)
    # the first turn goes with all that is set up, and is not counted
    CONTENDERS[name](corpus, own_folder(folder, name), steps * (rounds + 2), Turns(pipe, steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    told = raced(worker, CONTENDERS, options.corpus, options.steps, options.rounds)
    speeds = {name: [tokens / seconds for tokens, seconds in rows] for name, rows in told.items()}
    result: dict[str, Any] = {
        "architecture": ARCHITECTURE,
        "ratio_to_padded": times_faster(speeds, "bothways", "trainer_padded"),
        "ratio_to_group_texts": times_faster(speeds, "bothways", "trainer_group_texts"),
        **rates(speeds),
    }
    for key, value in result.items():
        print(f"{key}: {value}")
    print(record("trainer", result))


if __name__ == "__main__":
    main()
