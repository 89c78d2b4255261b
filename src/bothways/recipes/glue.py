"""Fine-tuning on the tasks of GLUE under one set of hyper-parameters, seed by seed, as cramming does (arXiv 2212.14034)."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pydantic
from rich.console import Console

from bothways.config import config, to_json
from bothways.data.loader import Loader
from bothways.data.packing import SampleCount
from bothways.data.table import TableData
from bothways.errors import InputError
from bothways.evaluation.glue import TaskData, constant_scores, task_scores
from bothways.evaluation.significance import summary
from bothways.evaluation.table import Table
from bothways.files import read_object, write_text
from bothways.model.folder import load
from bothways.model.model import Model
from bothways.objectives.classification import SequenceClassification
from bothways.recipes.carrying_out import Say
from bothways.recipes.finetuning import with_classifier
from bothways.training.interrupt import Interrupted
from bothways.training.loop import train
from bothways.training.optimizer import AdamW, Optimizer
from bothways.training.schedule import Cosine, Schedule, Steps
from bothways.training.settings import TrainingConfig, Watch

Scores = Mapping[str, float]


@config
class Protocol:
    """How every task is fine-tuned: no task, and no seed, has settings of its own.

    Attributes:
        epochs: passes over the training rows; cramming allows five.
        seeds: of the fresh head, the order of rows and dropout; one run each.
    """

    epochs: Annotated[int, pydantic.Field(ge=1)] = 5
    batch: Annotated[int, pydantic.Field(ge=1)] = 16
    optimizer: Optimizer = AdamW(lr=4e-5)
    schedule: Schedule = Cosine()
    seeds: Annotated[tuple[int, ...], pydantic.Field(min_length=1)] = (0, 1, 2, 3, 4)


@dataclass(frozen=True, eq=False)
class TaskResult:
    """The metrics of each seed on a task, and what always saying the same gets."""

    data: TaskData
    seeds: tuple[Scores, ...]
    constant: Scores

    def median(self, metric: str) -> float:
        return statistics.median(scores[metric] for scores in self.seeds)

    @property
    def score(self) -> float:
        """The mean over the task's metrics of their medians, as GLUE's average takes it."""
        return statistics.fmean(self.median(metric) for metric in self.data.task.metrics)


def finetune_on_task(
    source: str | Path,
    data: TaskData,
    protocol: Protocol,
    out: Path | None = None,
    say: Say = lambda line: None,
    console: Console | None = None,
) -> TaskResult:
    """Fine-tune the model of a folder once a seed, and evaluate the last weights of each run.

    Args:
        out: a file that keeps what is done, seed by seed; where it is there, only what it lacks is run.
        console: where the progress of training goes; standard error unless given.

    Raises:
        InputError: a model without tokenizer, or of a family without classifier; or `out` is of another model or protocol.
    """
    task, model = data.task, load(source)
    made_by = {
        "model": model.fingerprint,
        "protocol": json.loads(to_json(protocol)),
        "rows": [len(data.train), len(data.held)],
        "split": data.split,
    }
    made_by["protocol"].pop("seeds")  # more of them go on with what is there
    done = _done(out, made_by)
    for number, seed in enumerate(protocol.seeds, 1):
        if str(seed) not in done:
            say(f"{task.title}: seed {seed}, run {number} of {len(protocol.seeds)}")
            done[str(seed)] = _one(load(source), data, protocol, seed, say if not done else _silent, console)
            if out is not None:
                write_text(out, json.dumps({**made_by, "task": task.name, "seeds": done}, indent=2) + "\n")
    return TaskResult(data, tuple(done[str(seed)] for seed in protocol.seeds), constant_scores(data))


def task_table(results: Sequence[TaskResult], name: str) -> Table:
    """Each metric in per cent: the median of the seeds, their mean with its interval, and what a constant answer gets."""
    rows: list[tuple[object, ...]] = []
    for one in results:
        for metric in one.data.task.metrics:
            values = [100 * scores[metric] for scores in one.seeds]
            spread = summary(values) if len(values) > 1 else None
            interval = (spread.mean, spread.low, spread.high) if spread else (None, None, None)
            rows.append((one.data.task.title, metric, 100 * one.median(metric), *interval, 100 * one.constant[metric]))
    if len(results) > 1:
        rows.append(("average", "of tasks", 100 * statistics.fmean(one.score for one in results), None, None, None, None))
    held = ", ".join(f"{one.data.task.title} {one.data.split} {len(one.data.held):,}" for one in results)
    seeds = len(results[0].seeds) if results else 0
    note = f"{seeds} seed{'s' if seeds > 1 else ''}; evaluated on {held} rows; 95 % intervals of the mean over seeds"
    return Table(f"Fine-tuned: {name}", ("task", "metric", "median", "mean", "low", "high", "constant"), rows, note)


def _one(model: Model, data: TaskData, protocol: Protocol, seed: int, say: Say, console: Console | None) -> dict[str, float]:
    """One run: a fresh head on the pretrained encoder, trained, and its predictions scored."""
    task, rows = data.task, data.train
    if model.tokenizer is None:
        raise InputError(f"{model.name}: no tokenizer; fine-tuning on text needs one in the folder")
    classes = () if task.regression else rows.classes()
    labels = rows.scores() if task.regression else rows.class_numbers(classes)
    samples = TableData(rows, model.tokenizer, model.max_seq_length, labels, overflow="cut")
    if samples.cut:
        say(f"{task.title}: {samples.cut:,} of {len(rows):,} rows were cut to {model.max_seq_length} tokens")
    model = with_classifier(model, classes, task.regression, seed)
    objective = SequenceClassification(model.encoder, model.heads["classifier"], task.regression)  # type: ignore[arg-type]
    loader = Loader(samples, SampleCount(samples=protocol.batch), objective.prepare, seed)
    steps = protocol.epochs * math.ceil(len(rows) / protocol.batch)
    settings = TrainingConfig(
        optimizer=protocol.optimizer, schedule=protocol.schedule, budget=Steps(count=steps), seed=seed, checkpoint_every=None
    )
    watch = Watch() if console is None else Watch(console=console)
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(objective, loader.open, settings, Path(folder), device=model.device, run=to_json(protocol), watch=watch)
        except Interrupted:  # what it speaks of goes with the folder; whole seeds are kept
            raise KeyboardInterrupt from None
    return task_scores(task, data.held.labels, _predicted(model.eval(), data, classes))


def _predicted(model: Model, data: TaskData, classes: Sequence[str]) -> Sequence[str] | Sequence[float]:
    texts = data.held.texts
    inputs = [(row[0], row[1]) for row in texts] if len(texts[0]) == 2 else [row[0] for row in texts]
    values = model.predict(inputs, overflow="cut")
    if not np.isfinite(values).all():
        raise InputError(f"{data.task.title}: a prediction is not finite; training diverged: lower the learning rate")
    return values[:, 0].tolist() if data.task.regression else [classes[int(i)] for i in values.argmax(axis=1)]


def _done(out: Path | None, made_by: Mapping[str, object]) -> dict[str, dict[str, float]]:
    """The seeds that a file holds already."""
    if out is None or not out.exists():
        return {}
    kept = read_object(out)
    for key, value in made_by.items():
        if kept.get(key) != value:
            raise InputError(f"{out}: made with another {key}; choose another folder, or remove it")
    return kept["seeds"]


def _silent(line: str) -> None:
    pass
