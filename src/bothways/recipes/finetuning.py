"""From a pretrained encoder to a classifier, or to a sentence embedder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from bothways.data.loader import Loader
from bothways.data.table import LabelledRows, TableData, read_labelled
from bothways.encoder.initialisation import initialise
from bothways.errors import InputError
from bothways.families.family import Heads
from bothways.families.heads import build_heads
from bothways.layers.heads import Classifier, ClassifierHead, ClassifierPooling
from bothways.model.folder import load
from bothways.model.model import Model
from bothways.model.settings import EmbeddingSettings
from bothways.objectives.classification import SequenceClassification
from bothways.objectives.contrastive import Contrastive
from bothways.recipes.carrying_out import Say, Trained, carry_out, claim, watching
from bothways.recipes.runs import Embedding, Finetuning
from bothways.training.settings import Watch
from bothways.training.speed import gemm_rate


def finetune(run: Finetuning, folder: Path, say: Say = lambda line: None, command: str = "") -> Trained:
    """Train a classifier (or regression) head and the encoder under it; the model is saved in `folder/model`.

    Raises:
        InputError: rows that cannot be read, a label unseen in training, texts too long, a folder of another run.
    """
    claim(run, folder)
    task = classifying(run, start(run.model, run.from_scratch, run.training.seed), say)
    objective = SequenceClassification(task.model.encoder, task.head, run.regression)
    loader = Loader(task.data, run.batching, objective.prepare, run.training.seed, run.workers)
    title, metrics = "Fine-tuning", () if run.regression else ("accuracy",)
    return carry_out(
        run, folder, objective, loader.open, task.model, task.watch(run), title=title, command=command, metrics=metrics, say=say
    )


@dataclass(frozen=True, eq=False)
class Classifying:
    """A model with a classifier, and the rows that it learns from and is measured on.

    Attributes:
        classes: in the order of the classifier's outputs; none for a regression.
        held: None where nothing is held out.
    """

    model: Model
    rows: LabelledRows
    classes: tuple[str, ...]
    data: TableData
    held: TableData | None

    @property
    def head(self) -> Classifier:
        return cast("Classifier", self.model.heads["classifier"])

    def watch(self, run: Finetuning) -> Watch:
        """Loss and accuracy on the rows held out."""
        objective = SequenceClassification(self.model.encoder, self.head, run.regression)
        return watching(run, objective, self.held, str(self.model.device), ("loss", "accuracy"))


def classifying(run: Finetuning, model: Model, say: Say, keep: bool = False) -> Classifying:
    """Read a run's rows, and put a fresh classifier on a model; with `keep`, one that it has for the very same classes stays.

    Raises:
        InputError: as `finetune`.
    """
    rows, classes = labelled(run)
    data = row_data(run, model, rows, classes, say)
    held = None
    if run.held_out is not None:
        held = row_data(run, model, read_labelled(run.held_out, run.columns), classes, say)
    if not (keep and _classifies(model, classes, run)):
        model = with_classifier(model, classes, run.regression, run.training.seed, run.pooling)
    return Classifying(model, rows, classes, data, held)


def labelled(run: Finetuning) -> tuple[LabelledRows, tuple[str, ...]]:
    """A run's rows, and their classes; none for a regression.

    Raises:
        InputError: rows that cannot be read, or of one class.
    """
    rows = read_labelled(run.table, run.columns)
    classes = () if run.regression else rows.classes()
    if not run.regression and len(classes) < 2:
        raise InputError(f"{', '.join(run.table.paths)}: all rows have one label; a classifier needs two")
    return rows, classes


def _classifies(model: Model, classes: tuple[str, ...], run: Finetuning) -> bool:
    """Whether a model has a classifier of these very classes, in this order, that pools as it should."""
    if "classifier" not in model.heads or (model.spec.problem == "regression") != run.regression:
        return False
    head = cast("Classifier", model.heads["classifier"]).config
    return run.pooling in (None, head.pooling) and (head.labels == 1 if run.regression else model.spec.labels == classes)


def train_embedder(run: Embedding, folder: Path, say: Say = lambda line: None, command: str = "") -> Trained:
    """Train sentence vectors on pairs; the model is saved in `folder/model` in the sentence-transformers layout.

    Raises:
        InputError: rows that cannot be read, texts too long, a folder of another run.
    """
    claim(run, folder)
    model = start(run.model, run.from_scratch, run.training.seed)
    data = row_data(run, model, read_labelled(run.table, run.columns), (), say)
    if model.settings.prompts:
        say(f"the prompts of {run.model} ({', '.join(model.settings.prompts)}) are neither trained with nor kept")
    pooling = run.pooling or model.settings.pooling
    model.settings = EmbeddingSettings(pooling=pooling, normalize=True, max_seq_length=model.max_seq_length, declared=True)
    model = model.with_heads(Heads())
    objective = Contrastive(model.encoder, pooling, run.loss)
    loader = Loader(data, run.batching, objective.prepare, run.training.seed, run.workers)
    watch = Watch(rate=gemm_rate(str(model.device), torch.float32))
    title = "Training sentence vectors"
    return carry_out(
        run, folder, objective, loader.open, model, watch, title=title, command=command, metrics=("accuracy",), say=say
    )


def start(source: str, from_scratch: bool, seed: int) -> Model:
    """The model that a run on labelled rows begins with."""
    model = load(source)
    if model.tokenizer is None:
        raise InputError(f"{source}: no tokenizer; training on text needs one in the folder")
    if from_scratch:
        initialise(model, model.spec.encoder.initialisation, model.spec.encoder.num_layers, seed)
    return model


def row_data(run: Finetuning | Embedding, model: Model, rows: LabelledRows, classes: tuple[str, ...], say: Say) -> TableData:
    """Rows as samples, with the numbers of their classes, or their scores.

    Raises:
        InputError: a label that is none of the classes, or no number; texts too long.
    """
    assert model.tokenizer is not None
    labels: list[int] | list[float] | None = None
    if isinstance(run, Finetuning):
        labels = rows.scores() if run.regression else rows.class_numbers(classes)
    data = TableData(rows, model.tokenizer, model.max_seq_length, labels, run.overflow)
    if data.cut:
        say(f"{data.cut:,} of {len(rows):,} rows were cut to {model.max_seq_length} tokens")
    return data


def with_classifier(
    model: Model, classes: tuple[str, ...], regression: bool, seed: int, pooling: ClassifierPooling | None = None
) -> Model:
    """The model with a fresh classifier of its family's kind, drawn from the seed; `pooling` in place of the family's.

    Raises:
        InputError: the family has none.
    """
    head = _classifier(model, 1 if regression else len(classes))
    head = replace(head, pooling=pooling or head.pooling)
    fresh = build_heads(Heads(classifier=head), model.spec.encoder)
    initialise(fresh, model.spec.encoder.initialisation, model.spec.encoder.num_layers, seed)
    problem = "regression" if regression else "single_label_classification"
    return model.with_heads(Heads(classifier=head), dict(fresh.items()), labels=classes, problem=problem)


def _classifier(model: Model, labels: int) -> ClassifierHead:
    """The classifier head of the family, as its `read` gives it for a config that says nothing of it.

    Raises:
        InputError: the family has none.
    """
    from bothways.families.convert import Reader

    spec = replace(model.spec, heads=Heads())
    head = model.family.read(Reader(model.family.write(spec), model.name), {"classifier"}).heads.classifier
    if head is None:
        name = model.name or "this model"
        what = f"{name} is of the family '{model.family.name}', whose folders hold no classifier"
        raise InputError(f"{what}; it can be trained on pairs, or take another model")
    return replace(head, labels=labels)
