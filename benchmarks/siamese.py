"""Two encodings that learn from a cross-encoder, beside the same that learn from labels alone: how alike are two texts?

The teacher is a real checkpoint (all-MiniLM-L6-v2 unless given), fine-tuned on both texts together. The student begins as half
of that checkpoint's layers, before it was fine-tuned; it encodes each text alone, and a head compares the two (Distilled Sentence
Embedding). It learns from the labels and the teacher's logits, from the labels alone, and (one seed) from the labels and the same
logits in another order, with the same steps and seeds; rates and epochs were fixed beforehand. On the test rows of MRPC the
accuracy, of STS-B Spearman's correlation; a 95 % interval of the paired differences. How far an answer is from that to the pair
the other way round; and the time that one query takes against 10,000 candidates whose vectors are there. Finished parts in the
work folder are not done again.

    python benchmarks/siamese.py stsb glue/STS-B --work FOLDER [--model FOLDER] [--epochs 5] [--lr 1e-4] [--seeds 3]
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
from bothways.evaluation.glue import TASKS, Metric, Task, TaskData, read_task, task_scores
from bothways.evaluation.significance import paired, summary
from bothways.files import write_text
from bothways.model.folder import load
from bothways.recipes import siamese
from bothways.recipes.finetuning import finetune
from bothways.recipes.runs import Finetuning, SiameseDistillation
from bothways.recipes.siamese import PairScorer, distil_siamese, load_siamese
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Fraction, Linear, Steps
from bothways.training.settings import TrainingConfig

TEACHER_EPOCHS, TEACHER_RATE, BATCH = 4, 1e-4, 32
SIDES = ("distilled", "labels", "permuted")
CANDIDATES = 10_000
PAIR_TASKS = ("mrpc", "stsb")


def table(work: Path, name: str, rows: LabelledRows) -> JsonLines:
    path = work / f"{name}.jsonl"
    lines = [{"first": one, "second": two, "label": label} for (one, two), label in zip(rows.texts, rows.labels, strict=True)]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    return JsonLines(paths=(str(path),))


def on_pairs(model: Path, data: TaskData, table: JsonLines, seed: int, epochs: int, lr: float) -> Finetuning:
    """A run on the rows to train on."""
    training = TrainingConfig(
        optimizer=AdamW(lr=lr),
        schedule=Linear(warmup=Fraction(of=0.1)),
        budget=Steps(count=epochs * -(-len(data.train) // BATCH)),
        seed=seed,
        checkpoint_every=None,
    )
    return Finetuning(
        model=str(model), table=table, columns=TextPair(), regression=data.task.regression,
        batching=SampleCount(samples=BATCH), training=training, overflow="cut",
    )  # fmt: skip


def metric(task: Task) -> Metric:
    """Accuracy of classes; of scores, Spearman's correlation."""
    return "spearman" if task.regression else "accuracy"


def score(answer: Callable[[], list[str] | list[float]], data: TaskData, folder: Path) -> float:
    """Of one run, or as the work folder has it."""
    done = folder / "score.json"
    if not done.exists():
        found = task_scores(data.task, data.held.labels, answer())
        done.write_text(json.dumps(found[metric(data.task)]), encoding="utf-8")
    value = float(json.loads(done.read_text(encoding="utf-8")))
    print(f"{folder.name}: {value:.4f}", flush=True)
    return value


def told_by_teacher(run: Finetuning, folder: Path, data: TaskData) -> list[str] | list[float]:
    finetune(run, folder, print)
    told = load(folder / "model").predict([(pair[0], pair[1]) for pair in data.held.texts], overflow="cut")
    return told[:, 0].tolist() if data.task.regression else [data.train.classes()[one] for one in told.argmax(axis=1)]


def told_by_student(run: SiameseDistillation, folder: Path, side: str, seed: int, data: TaskData) -> list[str] | list[float]:
    taught(run, folder, side, seed)
    student = load_siamese(folder)
    told = student.logits(*sides_of(student, data.held))[:, 0]
    return told.tolist() if data.task.regression else [student.classes[one] for one in (told > 0).int().tolist()]


def taught(run: SiameseDistillation, folder: Path, side: str, seed: int) -> None:
    """Trains one student."""
    real = siamese.soft_labels

    def permuted(*given: object) -> np.ndarray:
        return np.random.default_rng(seed).permutation(real(*given))  # type: ignore[arg-type]

    if side == "labels":
        run = replace(run, soft=replace(run.soft, soft=0.0))
    with patch.object(siamese, "soft_labels", permuted if side == "permuted" else real):
        distil_siamese(run, folder, print)


def sides_of(student: PairScorer, rows: LabelledRows) -> tuple[torch.Tensor, torch.Tensor]:
    """The vectors of all first texts, and of all second ones."""
    first, second = (student.vectors([pair[side] for pair in rows.texts], overflow="cut") for side in (0, 1))
    return first, second


def swap_asymmetry(folder: Path, rows: LabelledRows) -> dict[str, float]:
    """What changes when first and second change places: the mean change of an output, and the outputs' spread beside it."""
    student = load_siamese(folder)
    first, second = sides_of(student, rows)
    one, other = student.logits(first, second), student.logits(second, first)
    told = {"mean_change": float((one - other).abs().mean()), "spread": float(one.std())}
    return told | ({"judged_otherwise": float(((one > 0) != (other > 0)).float().mean())} if student.classes else {})


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
    parser.add_argument("task", choices=PAIR_TASKS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--epochs", type=int, default=5, help="of the students")
    parser.add_argument("--lr", type=float, default=1e-4, help="of the students")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.seeds < 2:
        parser.error("--seeds: an interval needs at least two")
    model = options.model or packaged()
    work = options.work / options.task / model.parent.name
    data = read_task(TASKS[options.task], options.folder)
    work.mkdir(parents=True, exist_ok=True)
    train = table(work, "train", data.train)
    crossed = on_pairs(model, data, train, 0, TEACHER_EPOCHS, TEACHER_RATE)
    teacher = score(lambda: told_by_teacher(crossed, work / "teacher", data), data, work / "teacher")
    depth = load(model).spec.encoder.num_layers
    sides: dict[str, list[float]] = {side: [] for side in SIDES}

    def student(side: str, seed: int) -> float:
        run = SiameseDistillation(
            base=on_pairs(model, data, train, seed, options.epochs, options.lr),
            teacher=str(work / "teacher" / "model"),
            layers=spread_layers(depth, depth // 2),
        )
        folder = named(side, seed)
        return score(lambda: told_by_student(run, folder, side, seed, data), data, folder)

    def named(side: str, seed: int) -> Path:
        return work / f"{side}-{options.epochs}epochs-lr{options.lr}-seed{seed}"

    for seed in range(options.seeds):
        for side in SIDES if seed == 0 else SIDES[:2]:
            sides[side].append(student(side, seed))
    gap = paired(sides["distilled"], sides["labels"])
    print(f"teacher {teacher:.4f}; " + ", ".join(f"{side} {mean(values):.4f}" for side, values in sides.items()))
    print(f"  distilled less labels: {gap.mean:.4f} [{gap.low:.4f}, {gap.high:.4f}]")
    result = {
        "metric": metric(data.task),
        "teacher": {
            "checkpoint": model.parent.name,
            "layers": depth,
            "score": teacher,
            "lr": TEACHER_RATE,
            "epochs": TEACHER_EPOCHS,
        },
        "student": {"layers": depth // 2, "epochs": options.epochs, "lr": options.lr},
        "scores": sides,
        "mean": {side: asdict(summary(sides[side])) for side in ("distilled", "labels")},
        "distilled_less_labels": asdict(gap),
        "rows": {"train": len(data.train), "test": len(data.held)},
        "swapped": swap_asymmetry(named("distilled", 0), data.held),
        "seconds_for_10000_candidates": seconds_of_candidates(named("distilled", 0)),
    }  # fmt: skip
    print(record(f"siamese_{options.task}", result))


if __name__ == "__main__":
    main()
