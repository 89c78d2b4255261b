"""The tasks of GLUE (arXiv 1804.07461) that a small machine can hold, and banking77: their files and their metrics.

Read are the layouts users have: GLUE's own TSV, Microsoft's text files of MRPC, the STS benchmark's CSV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bothways.data.reading import read_lines
from bothways.data.rows import Csv
from bothways.data.table import LabelledRows, SingleText, TextPair, read_labelled
from bothways.errors import InputError
from bothways.evaluation.classification import binary_f1, classification_scores, correlation_scores
from bothways.evaluation.sts import read_sts

Metric = Literal["accuracy", "f1", "macro_f1", "mcc", "pearson", "spearman"]
Split = Literal["dev", "test"]
TaskName = Literal["sst2", "mrpc", "cola", "stsb", "rte", "wnli", "qnli", "banking77"]

# What a split's file may be called, in the task's folder; the first that is there is read
_FILES = {
    "train": ("train.tsv", "msr_paraphrase_train.txt", "sts-train.csv", "original/sts-train.csv", "train.csv"),
    "dev": ("dev.tsv", "sts-dev.csv", "original/sts-dev.csv", "dev.csv"),
    "test": ("test.tsv", "msr_paraphrase_test.txt", "sts-test.csv", "original/sts-test.csv", "test.csv"),
}


@dataclass(frozen=True)
class Task:
    """A task for a fine-tuned model.

    Attributes:
        title: as papers write it, and the name of its folder in GLUE.
        header: the names of the columns, where files have no line with them.
        positive: the class that F1 is of.
    """

    name: TaskName
    title: str
    columns: SingleText | TextPair
    metrics: tuple[Metric, ...]
    header: tuple[str, ...] | None = None
    delimiter: str = "\t"
    positive: str = "1"

    @property
    def regression(self) -> bool:
        return self.metrics == ("pearson", "spearman")


_PAIR = TextPair(first="sentence1", second="sentence2")
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("sst2", "SST-2", SingleText(text="sentence"), ("accuracy",)),
        Task("mrpc", "MRPC", TextPair(first="#1 String", second="#2 String", label="Quality"), ("accuracy", "f1")),
        Task("cola", "CoLA", SingleText(text="sentence"), ("mcc",), header=("source", "label", "mark", "sentence")),
        Task("stsb", "STS-B", replace(_PAIR, label="score"), ("pearson", "spearman")),
        Task("rte", "RTE", _PAIR, ("accuracy",)),
        Task("wnli", "WNLI", _PAIR, ("accuracy",)),
        Task("qnli", "QNLI", TextPair(first="question", second="sentence"), ("accuracy",)),
        Task("banking77", "banking77", SingleText(label="category"), ("accuracy", "macro_f1"), delimiter=","),
    )
}


@dataclass(frozen=True, eq=False)
class TaskData:
    """The rows to train on, and those to evaluate on, with the split these are of."""

    task: Task
    train: LabelledRows
    held: LabelledRows
    split: Split


def read_task(task: Task, folder: str | Path, split: Split | None = None) -> TaskData:
    """Read a task from its folder, or from the folder of all tasks.

    Args:
        split: what to evaluate on; None is `test` where it has labels (as in copies whose test is GLUE's dev), else `dev`.

    Raises:
        InputError: a file that is missing or without labels, or as `read_labelled`.
    """
    folder = _folder(task, Path(folder))
    train = _file(folder, "train")
    if train is None:
        raise InputError(f"{folder}: nothing to train {task.title} on; there is none of {', '.join(_FILES['train'])}")
    found = {name: file for name in ("test", "dev") if (file := _file(folder, name)) is not None and _labelled(task, file)}
    wanted: tuple[Split, ...] = ("test", "dev") if split is None else (split,)
    for name in wanted:
        if name in found:
            return TaskData(task, _rows(task, train), _rows(task, found[name]), name)
    labelled = ", ".join(found) or "none"
    raise InputError(f"{folder}: no labelled split '{' or '.join(wanted)}' of {task.title}; those with labels: {labelled}")


def task_scores(
    task: Task, truth: Sequence[str] | Sequence[float], predicted: Sequence[str] | Sequence[float]
) -> dict[str, float]:
    """The task's metrics. Raises as the functions of `evaluation.classification`."""
    if task.regression:
        scores = correlation_scores([float(value) for value in truth], [float(value) for value in predicted])
        # a constant prediction orders nothing
        return {name: 0.0 if scores[name] != scores[name] else scores[name] for name in task.metrics}
    names, guesses = [str(value) for value in truth], [str(value) for value in predicted]
    scores = classification_scores(names, guesses)
    if "f1" in task.metrics:
        scores["f1"] = binary_f1(names, guesses, task.positive)
    return {name: scores[name] for name in task.metrics}


def constant_scores(data: TaskData) -> dict[str, float]:
    """What always saying the same gets: the most frequent class of training, or one number."""
    if data.task.regression:
        return dict.fromkeys(data.task.metrics, 0.0)
    labels = [str(label) for label in data.train.labels]
    most = max(sorted(set(labels)), key=labels.count)
    truth = [str(label) for label in data.held.labels]
    return task_scores(data.task, truth, [most] * len(truth))


def _folder(task: Task, folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give {task.title}'s, or the one of all tasks")
    names = {task.title.lower(), task.name, task.title.replace("-", "").lower()}
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name.lower() in names]
    return inner[0] if inner else folder


def _file(folder: Path, split: str) -> Path | None:
    return next((folder / name for name in _FILES[split] if (folder / name).is_file()), None)


def _labelled(task: Task, file: Path) -> bool:
    """Whether the file has labels: those of GLUE's own test sets are withheld."""
    if file.name.startswith("sts-"):
        return True
    _, first = next(read_lines(file, "utf-8"), (0, ""))
    fields = first.rstrip("\r\n").split(task.delimiter)
    return len(fields) == len(task.header) if task.header else task.columns.label in fields


def _rows(task: Task, file: Path) -> LabelledRows:
    if file.name.startswith("sts-"):
        pairs = read_sts(file)
        texts, where = (
            tuple(zip(pairs.first, pairs.second, strict=True)),
            tuple(f"{file}:{n}" for n in range(1, len(pairs.first) + 1)),
        )
        return LabelledRows(task.columns, texts, tuple(pairs.grades.tolist()), where)
    quotes: Literal["none", "double"] = "none" if task.delimiter == "\t" else "double"
    table = Csv(paths=(str(file),), delimiter=task.delimiter, quotes=quotes, columns=task.header)
    return read_labelled(table, task.columns)
