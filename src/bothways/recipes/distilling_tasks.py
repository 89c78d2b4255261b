"""From a teacher that has learned a task to a smaller model for it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from bothways.data.loader import Loader
from bothways.data.table import LabelledRows, Overflow, TableData
from bothways.encoder.initialisation import initialise
from bothways.errors import InputError
from bothways.files import replacing
from bothways.layers.heads import Classifier
from bothways.model.batching import run as encode
from bothways.model.folder import load
from bothways.model.model import Model
from bothways.model.student import student_of
from bothways.objectives.distillation.labels import LabelledDistillation
from bothways.objectives.distillation.teacher import Teacher
from bothways.recipes.carrying_out import Say, Trained, carry_out, claim
from bothways.recipes.distilling import check_tokens
from bothways.recipes.finetuning import classifying, start
from bothways.recipes.head_files import told_beside
from bothways.recipes.runs import SiameseDistillation, TaskDistillation
from bothways.training import record
from bothways.training.team import team

# What the teacher says of the rows, in the run's folder
LOGITS = "teacher_logits.safetensors"


def distil_task(run: TaskDistillation, folder: Path, say: Say = lambda line: None, command: str = "") -> Trained:
    """Let a classifier, or a regression, learn of labels and of a teacher; the student is saved in `folder/model`.

    A student that begins as layers of a model with a classifier for the very same classes keeps that classifier.

    Raises:
        InputError: as `finetune`; a teacher without a classifier for these classes; hints where tokenizers differ, or that cannot
            compare the two.
    """
    base = run.base
    claim(run, folder)
    task = classifying(base, beginning(run), say, keep=not base.from_scratch)
    teacher = load(run.teacher)
    if run.hints is not None:
        assert task.model.tokenizer is not None
        check_tokens(task.model.tokenizer, teacher, int(task.data.lengths.max()))
    logits = soft_labels(run, teacher, folder, task.rows, task.classes, say)
    objective = LabelledDistillation(
        task.model.encoder, task.head, logits, run.soft, base.regression, Teacher(teacher) if run.hints else None, run.hints
    )
    spec = task.model.spec.encoder
    initialise(objective.terms, spec.initialisation, spec.num_layers, base.training.seed)
    loader = Loader(task.data, base.batching, objective.prepare, base.training.seed, base.workers)
    metrics = () if base.regression else ("accuracy",)
    return carry_out(
        run, folder, objective, loader.open, task.model, task.watch(base),
        title=f"Distilling {run.teacher}", command=command, metrics=metrics, say=say,
    )  # fmt: skip


def beginning(run: TaskDistillation | SiameseDistillation) -> Model:
    """What the student begins as."""
    model = start(run.base.model, run.base.from_scratch, run.base.training.seed)
    return model if run.layers is None else student_of(model, run.layers)


def soft_labels(
    run: TaskDistillation | SiameseDistillation,
    teacher: Model,
    folder: Path,
    rows: LabelledRows,
    classes: Sequence[str],
    say: Say,
) -> np.ndarray:
    """As `teacher_logits`: read once, and kept in the run's folder. Zeros where the run weighs them nothing.

    Raises:
        InputError: as `teacher_logits`; the run has begun with those of another teacher, or of other rows.
    """
    if not run.soft.soft:
        return np.zeros((len(rows), len(classes) or 1), np.float32)
    file, asked = folder / LOGITS, _asked(run, teacher, rows, classes)
    with team().in_turn():
        if not file.exists() or told_beside(file).get("asked") != asked:
            if file.exists() and record.read(folder) is not None:
                raise InputError(f"{file}: is of another teacher, or of other rows, than there are now; choose another folder")
            said = teacher_logits(teacher, rows, classes, run.base.regression, run.base.overflow, say)
            with replacing(file) as partial:
                save_file({"logits": torch.from_numpy(said)}, partial, {"asked": asked})
    return load_file(file)["logits"].numpy()


def _asked(run: TaskDistillation | SiameseDistillation, teacher: Model, rows: LabelledRows, classes: Sequence[str]) -> str:
    """sha256 of all that decides what a teacher says."""
    models = (teacher.fingerprint, teacher.heads_fingerprint)
    return hashlib.sha256(repr((models, rows.texts, tuple(classes), run.base.overflow)).encode()).hexdigest()


def teacher_logits(
    teacher: Model,
    rows: LabelledRows,
    classes: Sequence[str],
    regression: bool,
    overflow: Overflow = "error",
    say: Say = lambda line: None,
) -> np.ndarray:
    """What a teacher's classifier says of each row, float32 [rows, labels], in the order of the rows and of these classes.

    Raises:
        InputError: no tokenizer, no classifier, or one of other classes; rows too long for it.
    """
    if teacher.tokenizer is None or "classifier" not in teacher.heads:
        raise InputError(f"{teacher.name}: a teacher needs a tokenizer and a classifier; fine-tune it on the task first")
    order = _outputs(teacher, classes, regression)
    try:
        data = TableData(rows, teacher.tokenizer, teacher.max_seq_length, None, overflow)
    except InputError as error:
        raise InputError(f"the teacher {teacher.name}: {error}") from None
    if data.cut:
        say(f"{teacher.name}: {data.cut:,} of {len(rows):,} rows were cut to {teacher.max_seq_length} tokens")
    samples = [data[number] for number in range(len(data))]
    typed = teacher.spec.encoder.embedding.token_types > 1 and samples[0].types is not None
    types = [sample.types[0] for sample in samples if sample.types is not None] if typed else None
    head = cast("Classifier", teacher.heads["classifier"])
    ids = [sample.sequences[0] for sample in samples]
    teacher.eval()
    say(f"{teacher.name} reads {len(rows):,} rows")
    said = encode(
        teacher.encoder, ids, lambda encoded, _: head(encoded.hidden, encoded.ragged).float().cpu(), types, mark=head.marked
    )
    return torch.stack(said)[:, order].contiguous().numpy()


def _outputs(teacher: Model, classes: Sequence[str], regression: bool) -> list[int]:
    """The teacher's output for each class."""
    head, labels = cast("Classifier", teacher.heads["classifier"]), teacher.spec.labels
    if regression:
        if head.config.labels != 1:
            raise InputError(f"{teacher.name}: a regression has one output, this teacher has {head.config.labels}")
        return [0]
    if sorted(labels) != sorted(classes):
        theirs, ours = (", ".join(names[:5]) + (", ..." if len(names) > 5 else "") for names in (labels, tuple(classes)))
        what = f"its {len(labels)} classes are {theirs or 'not named'}"
        raise InputError(f"{teacher.name}: {what}; the table's {len(classes)} are {ours}")
    return [labels.index(name) for name in classes]
