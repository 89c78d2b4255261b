"""What 20 minutes of pretraining bring to a classifier, beside the same network from scratch.

A tiny ModernBERT is pretrained on a corpus for so many hours of steps (the recipe `speedrun`, whose embeddings begin as word
vectors counted in that corpus); then it is fine-tuned on SST-2 (GLUE) and on banking77, for three epochs as BERT was, five
seeds each. Beside it: the same network with fresh weights drawn from the same scheme, on the same tokens; and with `--vectors`
the one that begins as the word vectors, with no steps after them. Each side has the best of three learning rates, chosen with a
sixth seed on rows that are not the test's. Accuracy on the test rows; 95 % intervals of the differences from fresh weights
(Welch). Of SST-2's 872 test sentences, on which two networks of equal worth are a percent apart by chance, there are too few:
2,000 more are kept from training, and the 872 are reported beside. Finished parts in the work folder are not done again.

    python benchmarks/pretraining_helps.py CORPUS.jsonl SST-2/ banking77/ --work FOLDER [--hours 0.3333] [--seeds 5] [--vectors]
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from harness import record

from bothways.data.packing import SampleCount
from bothways.data.rows import JsonLines, open_table, read_rows
from bothways.data.source import open_source
from bothways.data.table import SingleText
from bothways.evaluation.significance import summary, welch
from bothways.model.model import Model
from bothways.recipes.finetuning import finetune
from bothways.recipes.pretraining import prepare_shards, prepare_tokenizer, pretrain, set_up
from bothways.recipes.quick import speedrun
from bothways.recipes.runs import Finetuning, Pretraining
from bothways.recipes.word_vectors import prepare_word_vectors
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Fraction, Hours, Linear, Steps
from bothways.training.settings import TrainingConfig

RATES = (3e-4, 1e-3, 3e-3)
SCRATCH = "scratch"
# Sentences of SST-2's training rows
KEPT_TO_CHOOSE, KEPT_TO_TEST = 1000, 2000
Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Task:
    """Rows of (text, label) to train on, to choose by and to test on, in parts; and how often the training rows are seen."""

    name: str
    train: Rows
    choose: Mapping[str, Rows]
    test: Mapping[str, Rows]
    epochs: int
    samples: int


def rows(path: Path, text: str, label: str) -> list[tuple[str, str]]:
    return [(one.strip(), other) for _, (one, other) in read_rows(open_table(path), (text, label))]


class Holding:
    """Finds the texts in which others stand, word by word."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = [f" {text} " for text in texts]
        self._with: dict[str, list[str]] = defaultdict(list)
        for text in self._texts:
            for word in set(text.split()):
                self._with[word].append(text)

    def count(self, text: str) -> int:
        rarest = min((self._with[word] for word in text.split()), key=len)
        return sum(f" {text} " in other for other in rarest)


def sst2(folder: Path, epochs: int = 3) -> Task:
    """The rows to train on are sentences and phrases of them; of the test's, phrases are none.

    Sentences are kept from training as the test's were: with all phrases that stand in no other sentence.
    """
    train, more, test = (rows(folder / f"{part}.tsv", "sentence", "label") for part in ("train", "dev", "test"))
    labels = dict(train + more)
    every = Holding(labels)
    sentences = [text for text in labels if every.count(text) == 1]
    kept = random.Random(0).sample([text for text in sentences if len(text.split()) >= 10], KEPT_TO_CHOOSE + KEPT_TO_TEST)
    learned = Holding(set(sentences) - set(kept))
    choose, tested = ([(text, labels[text]) for text in part] for part in (kept[:KEPT_TO_CHOOSE], kept[KEPT_TO_CHOOSE:]))
    remaining = [row for row in train + more if learned.count(row[0])]
    return Task("SST-2", remaining, {"kept": choose}, {"published": test, "kept": tested}, epochs, samples=64)


def banking77(folder: Path, epochs: int = 3) -> Task:
    """A tenth of the training rows is for choosing."""
    train, test = (rows(folder / f"{part}.csv", "text", "category") for part in ("train", "test"))
    random.Random(0).shuffle(train)
    return Task("banking77", train[1000:], {"kept": train[:1000]}, {"published": test}, epochs, samples=32)


def train_table(work: Path, task: Task) -> Path:
    return work / task.name / "train.jsonl"


def write(path: Path, content: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in content), encoding="utf-8")


def right(model: Model, content: Rows) -> float:
    """The share of rows whose class a model finds."""
    found = model.predict([text for text, _ in content], overflow="cut").argmax(axis=1)
    return mean(model.spec.labels[number] == label for number, (_, label) in zip(found, content, strict=True))


def pooled(values: Mapping[str, float], parts: Mapping[str, Rows]) -> float:
    """Of all rows, from the accuracies of the parts."""
    return sum(values[name] * len(part) for name, part in parts.items()) / sum(map(len, parts.values()))


def accuracy(model: Path, task: Task, held_out: str, side: str, lr: float, seed: int, work: Path) -> dict[str, float]:
    """Of each part of the rows held out, after one fine-tuning run, or as the work folder has it.

    Of the side `SCRATCH`, from fresh weights.
    """
    folder = work / task.name / f"{side}-{held_out}-{task.epochs}epochs-lr{lr}-seed{seed}"
    done = folder / "accuracy.json"
    if not done.exists():
        steps = task.epochs * -(-len(task.train) // task.samples)
        run = Finetuning(
            model=str(model),
            table=JsonLines(paths=(str(train_table(work, task)),)),
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
        trained = finetune(run, folder, print).model
        values = {name: right(trained, part) for name, part in getattr(task, held_out).items()}
        done.write_text(json.dumps(values), encoding="utf-8")
    values = json.loads(done.read_text(encoding="utf-8"))
    print(f"{task.name} {side} {held_out} lr {lr} seed {seed}: {values}", flush=True)
    return values


def begun(run: Pretraining, folder: Path) -> Path:
    """The model that the run in the folder began with."""
    tokenizer = prepare_tokenizer(run, folder, print)
    opened = prepare_shards(run, folder, tokenizer, print)
    vectors = prepare_word_vectors(run, folder, tokenizer, opened, print)
    return set_up(run, tokenizer, opened, "cpu", print, vectors=vectors).model.save(folder / "begun")


def compare(models: Mapping[str, Path], task: Task, seeds: int, work: Path, pool: Executor) -> dict[str, Any]:
    """Each side's accuracies, and the differences from the side `SCRATCH`: of all rows, and of each part of them."""
    write(train_table(work, task), task.train)

    def all_of(held_out: str, rates: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> dict[str, list[dict[str, float]]]:
        """Accuracies by side, in the order of learning rates, then seeds; runs go side by side."""
        futures = {
            side: [
                pool.submit(accuracy, models[side], task, held_out, side, lr, seed, work) for lr in rates[side] for seed in seeds
            ]
            for side in rates
        }
        return {side: [future.result() for future in part] for side, part in futures.items()}

    tried = all_of("choose", dict.fromkeys(models, RATES), [seeds])
    chosen = {side: RATES[max(range(len(RATES)), key=lambda i: values[i]["kept"])] for side, values in tried.items()}
    sides = all_of("test", {side: [lr] for side, lr in chosen.items()}, range(seeds))
    counts = {name: len(part) for name, part in task.test.items()}
    for values in (one for part in sides.values() for one in part):
        values["all"] = pooled(values, task.test)
    of = {name: {side: [one[name] for one in part] for side, part in sides.items()} for name in ("all", *counts)}
    return {
        "epochs": task.epochs,
        "train_rows": len(task.train),
        "test_rows": {"all": sum(counts.values()), **counts},
        "learning_rate": chosen,
        "accuracy": {name: judged(values) for name, values in of.items()},
    }


def judged(sides: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Of one set of rows: the values by seed, means, and differences from `SCRATCH`."""
    return {
        "seeds": sides,
        "mean": {side: asdict(summary(values)) for side, values in sides.items()},
        "difference": {side: asdict(welch(sides[side], sides[SCRATCH])) for side in sides if side != SCRATCH},
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
    models: dict[str, Path] = dict.fromkeys(("pretrained", SCRATCH), trained.folder / "model")
    if options.vectors:
        models["vectors"] = begun(run, trained.folder)
    tasks = (banking77(options.banking77, options.epochs), sst2(options.sst2, options.epochs))
    # tiny networks on short texts: two processes of one thread do more than one of two
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        results = {task.name: compare(models, task, options.seeds, options.work, pool) for task in tasks}
    pretraining = {"seconds": trained.result.seconds, "tokens": trained.result.tokens, "evaluation": trained.result.evaluation}
    for task, one in results.items():
        for part, found in one["accuracy"].items():
            means = ", ".join(f"{side} {value['mean']:.4f}" for side, value in found["mean"].items())
            print(f"{task}, {part} ({one['test_rows'][part]:,} rows): {means}")
            for side, gap in found["difference"].items():
                print(f"  {side} less {SCRATCH}: {gap['mean']:.4f} [{gap['low']:.4f}, {gap['high']:.4f}]")
    print(record("pretraining_helps", {"pretraining": pretraining, "tasks": results}))


if __name__ == "__main__":
    main()
