"""Two encodings that learn from a cross-encoder, beside the same that learn from labels alone: MRPC, do two texts say the same?

The teacher is a real checkpoint (all-MiniLM-L6-v2 unless given), fine-tuned on both texts together. The student begins as half
of that checkpoint's layers, before it was fine-tuned; it encodes each text alone, and a head compares the two (Distilled Sentence
Embedding). It learns from the labels and the teacher's logits, from the labels alone, and (one seed) from the labels and the same
logits in another order, with the same steps and seeds; rates and epochs were fixed beforehand. Accuracy on the test rows; a 95 %
interval of the paired differences. How many of the test's pairs are judged otherwise the other way round; and the time that one
query takes against 10,000 candidates whose vectors are there. Finished parts in the work folder are not done again.

    python benchmarks/siamese.py glue/MRPC --work FOLDER [--model FOLDER] [--epochs 3] [--lr 1e-4] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from time import perf_counter
from unittest.mock import patch

import numpy as np
import torch
from distillation import packaged
from harness import record

from bothways.data.packing import SampleCount
from bothways.data.rows import JsonLines
from bothways.data.table import LabelledRows, TextPair
from bothways.encoder.picking import spread_layers
from bothways.evaluation.glue import TASKS, read_task
from bothways.evaluation.significance import paired, summary
from bothways.files import write_text
from bothways.model.folder import load
from bothways.recipes import siamese
from bothways.recipes.carrying_out import Trained
from bothways.recipes.finetuning import finetune
from bothways.recipes.runs import Finetuning, SiameseDistillation
from bothways.recipes.siamese import distil_siamese, load_siamese
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Fraction, Linear, Steps
from bothways.training.settings import TrainingConfig

TEACHER_EPOCHS, TEACHER_RATE, BATCH = 4, 1e-4, 32
SIDES = ("distilled", "labels", "permuted")
CANDIDATES = 10_000


def table(work: Path, name: str, rows: LabelledRows) -> JsonLines:
    path = work / f"{name}.jsonl"
    lines = [{"first": one, "second": two, "label": label} for (one, two), label in zip(rows.texts, rows.labels, strict=True)]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    return JsonLines(paths=(str(path),))


def on_pairs(model: Path, tables: tuple[JsonLines, JsonLines], rows: int, seed: int, epochs: int, lr: float) -> Finetuning:
    """A run on the rows to train on, evaluated on the test's."""
    training = TrainingConfig(
        optimizer=AdamW(lr=lr),
        schedule=Linear(warmup=Fraction(of=0.1)),
        budget=Steps(count=epochs * -(-rows // BATCH)),
        seed=seed,
        checkpoint_every=None,
    )
    return Finetuning(
        model=str(model), table=tables[0], columns=TextPair(), held_out=tables[1],
        batching=SampleCount(samples=BATCH), training=training, overflow="cut",
    )  # fmt: skip


def accuracy(train: Callable[[], Trained], folder: Path) -> float:
    """Of one run, or as the work folder has it."""
    done = folder / "accuracy.json"
    if not done.exists():
        done.write_text(json.dumps(train().result.evaluation["accuracy"]), encoding="utf-8")
    value = float(json.loads(done.read_text(encoding="utf-8")))
    print(f"{folder.name}: {value:.4f}", flush=True)
    return value


def taught(run: SiameseDistillation, folder: Path, side: str, seed: int) -> Trained:
    if side == "labels":
        return distil_siamese(replace(run, soft=replace(run.soft, soft=0.0)), folder, print)
    if side == "distilled":
        return distil_siamese(run, folder, print)
    real = siamese.soft_labels

    def permuted(*given: object) -> np.ndarray:
        return np.random.default_rng(seed).permutation(real(*given))  # type: ignore[arg-type]

    with patch.object(siamese, "soft_labels", permuted):
        return distil_siamese(run, folder, print)


def otherwise_swapped(folder: Path, rows: LabelledRows) -> float:
    """The share of pairs that are judged otherwise when first and second change places."""
    student = load_siamese(folder)
    first, second = (student.vectors([pair[side] for pair in rows.texts], overflow="cut") for side in (0, 1))
    return float(((student.logits(first, second) > 0) != (student.logits(second, first) > 0)).float().mean())


def seconds_of_candidates(folder: Path) -> float:
    """What the head alone takes for one query: the median of five."""
    student = load_siamese(folder)
    query, others = student.vectors(["one query"]), student.vectors(["a candidate"]).repeat(CANDIDATES, 1)
    times = []
    for _ in range(5):
        begun = perf_counter()
        student.logits(query, others)
        times.append(perf_counter() - begun)
    return sorted(times)[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mrpc", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--epochs", type=int, default=3, help="of the students")
    parser.add_argument("--lr", type=float, default=1e-4, help="of the students")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, work = options.model or packaged(), options.work
    data = read_task(TASKS["mrpc"], options.mrpc)
    work.mkdir(parents=True, exist_ok=True)
    tables, rows = (table(work, "train", data.train), table(work, "test", data.held)), len(data.train)
    crossed = on_pairs(model, tables, rows, 0, TEACHER_EPOCHS, TEACHER_RATE)
    teacher = accuracy(lambda: finetune(crossed, work / "teacher", print), work / "teacher")
    depth = load(model).spec.encoder.num_layers
    sides: dict[str, list[float]] = {side: [] for side in SIDES}

    def name(side: str, seed: int) -> str:
        return f"{side}-{options.epochs}epochs-lr{options.lr}-seed{seed}"

    for seed in range(options.seeds):
        for side, values in sides.items():
            if side == "permuted" and seed:
                continue
            run = SiameseDistillation(
                base=on_pairs(model, tables, rows, seed, options.epochs, options.lr),
                teacher=str(work / "teacher" / "model"),
                layers=spread_layers(depth, depth // 2),
            )
            folder = work / name(side, seed)
            values.append(accuracy(lambda one=run, at=folder, of=side, n=seed: taught(one, at, of, n), folder))  # type: ignore[misc]
    gap = paired(sides["distilled"], sides["labels"])
    print(f"teacher {teacher:.4f}; " + ", ".join(f"{side} {mean(values):.4f}" for side, values in sides.items()))
    print(f"  distilled less labels: {gap.mean:.4f} [{gap.low:.4f}, {gap.high:.4f}]")
    result = {
        "teacher": {"checkpoint": model.parent.name, "layers": depth, "accuracy": teacher, "lr": TEACHER_RATE},
        "student": {"layers": depth // 2, "epochs": options.epochs, "lr": options.lr},
        "accuracy": sides,
        "mean": {side: asdict(summary(sides[side])) for side in ("distilled", "labels")},
        "distilled_less_labels": asdict(gap),
        "rows": {"train": rows, "test": len(data.held)},
        "otherwise_swapped": otherwise_swapped(work / name("distilled", 0), data.held),
        "seconds_for_10000_candidates": seconds_of_candidates(work / name("distilled", 0)),
    }
    print(record("siamese", result))


if __name__ == "__main__":
    main()
