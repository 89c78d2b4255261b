"""What 20 minutes of pretraining bring to a classifier, beside the same network from scratch.

A tiny ModernBERT is pretrained on a corpus for so many hours of steps (the recipe `speedrun`, whose embeddings begin as word
vectors counted in that corpus); then it is fine-tuned on SST-2 (GLUE) and on banking77, for three epochs as BERT was, five
seeds each. Beside it: the same network with fresh weights drawn from the same scheme, on the same tokens; and with `--vectors`
the one that begins as the word vectors, with no steps after them. Each side has the best of three learning rates, chosen with a
sixth seed on rows that are not the test's. Accuracy on the test rows; 95 % intervals of the differences from fresh weights
(Welch). Finished parts in the work folder are not done again.

    python benchmarks/pretraining_helps.py CORPUS.jsonl SST-2/ banking77/ --work FOLDER [--hours 0.3333] [--seeds 5] [--vectors]
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from harness import record

from bothways.data.packing import SampleCount
from bothways.data.rows import JsonLines, open_table, read_rows
from bothways.data.source import open_source
from bothways.data.table import SingleText
from bothways.evaluation.significance import summary, welch
from bothways.recipes.finetuning import finetune
from bothways.recipes.pretraining import prepare_shards, prepare_tokenizer, pretrain, set_up
from bothways.recipes.quick import speedrun
from bothways.recipes.runs import Finetuning, Pretraining
from bothways.recipes.word_vectors import prepare_vectors
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Fraction, Hours, Linear, Steps
from bothways.training.settings import TrainingConfig

RATES = (3e-4, 1e-3, 3e-3)
SCRATCH = "scratch"
Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Task:
    """Rows of (text, label) to train on, to choose by and to test on; and how often the training rows are seen."""

    name: str
    train: Rows
    choose: Rows
    test: Rows
    epochs: int
    samples: int


def rows(path: Path, text: str, label: str) -> list[tuple[str, str]]:
    return [(one, other) for _, (one, other) in read_rows(open_table(path), (text, label))]


def sst2(folder: Path, epochs: int = 3) -> Task:
    """The rows are sentences and phrases out of them: no phrase of a sentence to choose by is trained on."""
    train, more, test = (rows(folder / f"{part}.tsv", "sentence", "label") for part in ("train", "dev", "test"))
    sentences = [row for row in train + more if len(row[0].split()) >= 15]
    choose = random.Random(0).sample(sentences, 1000)
    chosen = "\n".join(text.strip() for text, _ in choose)
    return Task("SST-2", [row for row in train + more if row[0].strip() not in chosen], choose, test, epochs, samples=64)


def banking77(folder: Path, epochs: int = 3) -> Task:
    """A tenth of the training rows is for choosing."""
    train, test = (rows(folder / f"{part}.csv", "text", "category") for part in ("train", "test"))
    random.Random(0).shuffle(train)
    return Task("banking77", train[1000:], train[:1000], test, epochs, samples=32)


def table(path: Path, content: Rows) -> JsonLines:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in content), encoding="utf-8")
    return JsonLines(paths=(str(path),))


def accuracy(model: Path, task: Task, held_out: str, side: str, lr: float, seed: int, work: Path) -> float:
    """One fine-tuning run, or its result if the work folder has it; of the side `SCRATCH`, from fresh weights."""
    folder = work / task.name / f"{side}-{held_out}-{task.epochs}epochs-lr{lr}-seed{seed}"
    done = folder / "accuracy.json"
    if not done.exists():
        steps = task.epochs * -(-len(task.train) // task.samples)
        run = Finetuning(
            model=str(model),
            table=table(work / task.name / "train.jsonl", task.train),
            held_out=table(work / task.name / f"{held_out}.jsonl", getattr(task, held_out)),
            columns=SingleText(),
            batching=SampleCount(samples=task.samples),
            training=TrainingConfig(
                optimizer=AdamW(lr=lr),
                schedule=Linear(warmup=Fraction(of=0.1)),
                budget=Steps(count=steps),
                seed=seed,
            ),
            from_scratch=side == SCRATCH,
            overflow="cut",
        )
        result = finetune(run, folder, print).result
        done.write_text(json.dumps(result.evaluation["accuracy"]), encoding="utf-8")
    value = float(json.loads(done.read_text(encoding="utf-8")))
    print(f"{task.name} {side} {held_out} lr {lr} seed {seed}: {value:.4f}", flush=True)
    return value


def begun(run: Pretraining, folder: Path) -> Path:
    """The model that the run in the folder began with."""
    tokenizer = prepare_tokenizer(run, folder, print)
    opened = prepare_shards(run, folder, tokenizer, print)
    vectors = prepare_vectors(run, folder, tokenizer, opened, print)
    return set_up(run, tokenizer, opened, "cpu", print, vectors=vectors).model.save(folder / "begun")


def compare(models: Mapping[str, Path], task: Task, seeds: int, work: Path, pool: Executor) -> dict[str, Any]:
    """Each side's accuracies, and the differences from the side `SCRATCH`."""
    for part in ("train", "choose", "test"):
        table(work / task.name / f"{part}.jsonl", getattr(task, part))

    def all_of(held_out: str, rates: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> dict[str, list[float]]:
        """Accuracies by side, in the order of learning rates, then seeds; runs go side by side."""
        futures = {
            side: [
                pool.submit(accuracy, models[side], task, held_out, side, lr, seed, work) for lr in rates[side] for seed in seeds
            ]
            for side in rates
        }
        return {side: [future.result() for future in part] for side, part in futures.items()}

    tried = all_of("choose", dict.fromkeys(models, RATES), [seeds])
    chosen = {side: RATES[values.index(max(values))] for side, values in tried.items()}
    sides = all_of("test", {side: [lr] for side, lr in chosen.items()}, range(seeds))
    return {
        "accuracy": sides,
        "mean": {side: asdict(summary(values)) for side, values in sides.items()},
        "learning_rate": chosen,
        "difference": {side: asdict(welch(sides[side], sides[SCRATCH])) for side in sides if side != SCRATCH},
        "epochs": task.epochs,
        "test_rows": len(task.test),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("sst2", type=Path)
    parser.add_argument("banking77", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=1 / 3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--vectors", action="store_true")
    options = parser.parse_args()
    run = speedrun(open_source(options.corpus), Hours(hours=options.hours), "tiny")
    trained = pretrain(run, options.work / "pretrained", print)
    models = dict.fromkeys(("pretrained", SCRATCH), trained.folder / "model")
    if options.vectors:
        models["vectors"] = begun(run, trained.folder)
    tasks = (banking77(options.banking77, options.epochs), sst2(options.sst2, options.epochs))
    # tiny networks on short texts: two processes of one thread do more than one of two
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        results = {task.name: compare(models, task, options.seeds, options.work, pool) for task in tasks}
    pretraining = {"seconds": trained.result.seconds, "tokens": trained.result.tokens, "evaluation": trained.result.evaluation}
    for name, one in results.items():
        print(f"{name}: " + ", ".join(f"{side} {mean['mean']:.4f}" for side, mean in one["mean"].items()))
        for side, gap in one["difference"].items():
            print(f"  {side} less {SCRATCH}: {gap['mean']:.4f} [{gap['low']:.4f}, {gap['high']:.4f}]")
    print(record("pretraining_helps", {"pretraining": pretraining, "tasks": results}))


if __name__ == "__main__":
    main()
