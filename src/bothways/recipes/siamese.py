"""From a cross-encoder to two encodings and a head on them: Distilled Sentence Embedding, and the scoring of many candidates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bothways.config import from_json
from bothways.data.loader import Loader
from bothways.data.table import Contrast, LabelledRows, TableData, TextPair, read_labelled
from bothways.encoder.initialisation import initialise
from bothways.errors import InputError
from bothways.families.family import Heads
from bothways.model.batching import run as encode
from bothways.model.folder import load
from bothways.model.model import Model, refuse_one
from bothways.model.overflow import fit
from bothways.model.settings import EmbeddingSettings
from bothways.objectives.distillation.pairs import PairClassifier, PairDistillation, PairHead
from bothways.recipes.carrying_out import Say, Trained, carry_out, claim, watching
from bothways.recipes.distilling_tasks import beginning, soft_labels
from bothways.recipes.finetuning import labelled, row_data
from bothways.recipes.head_files import load_beside, save_beside, told_beside
from bothways.recipes.runs import SiameseDistillation
from bothways.training import record
from bothways.training.settings import Watch

# The head's weights, in the run's folder
PAIR_HEAD = "pair_head.safetensors"
_CLASSES = "classes"
_PUBLISHED_LAYERS = 4
# Pairs that the head reads at once
_PAIRS = 4096


def distil_siamese(run: SiameseDistillation, folder: Path, say: Say = lambda line: None, command: str = "") -> Trained:
    """Let two encodings and a head learn of labels and of a cross-encoder.

    The encoder is saved in `folder/model`, the head beside it.

    Raises:
        InputError: as `finetune`; columns that are no pair; more `vector_layers` than the student has; a teacher without a
            classifier for these classes; logits of two classes that are not compared as squares.
    """
    base = run.base
    if not isinstance(base.columns, TextPair):
        raise InputError("columns: two texts of a pair are expected, each of which is encoded alone")
    claim(run, folder, PAIR_HEAD)
    model = _begun(run)
    rows, classes = labelled(base)
    data = _apart(run, model, rows, classes, say)
    head = PairClassifier(_head(run, model, len(classes)), model.encoder)
    initialise(head, model.spec.encoder.initialisation, model.spec.encoder.num_layers, base.training.seed)
    watch = _watch(run, model, head, classes, say)
    # a large teacher takes hours: whatever may be wrong has been looked at before
    logits = soft_labels(run, load(run.teacher), folder, rows, classes, say)
    objective = PairDistillation(model.encoder, head, logits, run.soft, base.regression)
    loader = Loader(data, base.batching, objective.prepare, base.training.seed, base.workers)
    metrics = () if base.regression else ("accuracy",)
    trained = carry_out(
        run, folder, objective, loader.open, model, watch,
        title=f"Distilling {run.teacher} to two encodings", command=command, metrics=metrics, say=say,
    )  # fmt: skip
    save_beside(folder / PAIR_HEAD, head, {_CLASSES: json.dumps(classes)})
    say(f"the head that compares two vectors: {folder / PAIR_HEAD}")
    return trained


@dataclass(frozen=True, eq=False)
class PairScorer:
    """A trained student: vectors of texts, and what pairs of them are.

    Attributes:
        classes: in the order of the logits; of two, the one logit is the log odds of the second; none for a regression.
    """

    model: Model
    head: PairClassifier
    classes: tuple[str, ...]

    def vectors(self, texts: Sequence[str], overflow: Literal["error", "cut"] = "error") -> Float[Tensor, "texts size"]:
        """One encoding a text, whatever it is compared with; on the CPU.

        Args:
            overflow: what happens to texts over the model's length: "error" refuses, "cut" reads their beginning and
                warns with the count.

        Raises:
            InputError: a text is too long under "error", or one text and no list is given.
        """
        refuse_one(texts, "vectors")
        tokenizer = self.model.tokenizer
        assert tokenizer is not None
        contents = tokenizer.encode(list(texts), specials=False)
        ids = [
            tokenizer.wrap(one)
            for one in fit(contents, self.model.max_seq_length - tokenizer.specials_per_sequence, overflow).ids
        ]
        found = encode(self.model.encoder, ids, lambda encoded, _: self.head.vectors(encoded).float().cpu(), keep=True)
        return torch.stack(found) if found else torch.zeros(0, self.head.hidden.in_features // 4)

    @torch.inference_mode()
    def logits(self, u: Float[Tensor, "first size"], v: Float[Tensor, "second size"]) -> Float[Tensor, "pairs labels"]:
        """Of pairs of first and second texts; one vector on either side goes with all of the other.

        Raises:
            InputError: other numbers of vectors.
        """
        if len(u) != len(v) and 1 not in (len(u), len(v)):
            raise InputError(f"{len(u)} first texts and {len(v)} second ones: give as many, or one on either side")
        first, second = torch.broadcast_tensors(u, v)
        device = self.head.out.weight.device
        blocks = zip(first.split(_PAIRS), second.split(_PAIRS), strict=True)
        return torch.cat([self.head(one.to(device), other.to(device)).float().cpu() for one, other in blocks])


def load_siamese(folder: Path | str, device: str | None = None) -> PairScorer:
    """What a finished run has trained, in evaluation mode.

    Raises:
        InputError: no such run, one that is not finished, or a head of another shape.
    """
    folder = Path(folder)
    known, file = record.read(folder), folder / PAIR_HEAD
    if known is None or not file.exists():
        raise InputError(f"{folder}: no finished run of `bothways distil --apart`")
    run = from_json(SiameseDistillation, json.dumps(known.run), str(folder / record.NAME))
    model = load(str(folder / "model"), device=device)
    classes = tuple(json.loads(told_beside(file)[_CLASSES]))
    head = PairClassifier(_head(run, model, len(classes)), model.encoder)
    load_beside(file, head)
    return PairScorer(model, head.to(model.device).eval(), classes)


def _begun(run: SiameseDistillation) -> Model:
    """What the student begins as. A sentence embedder is none any more: its vectors are made otherwise, and read by the head."""
    model = beginning(run).with_heads(Heads())
    assert model.tokenizer is not None
    if not model.tokenizer.template.before:
        what = "its tokenizer begins a text with no token of its own, and a vector leaves the first one out"
        raise InputError(f"{run.base.model}: {what}; begin as another model")
    model.settings = EmbeddingSettings(max_seq_length=model.max_seq_length)
    return model


def _head(run: SiameseDistillation, model: Model, classes: int) -> PairHead:
    """Two classes are one output, their log odds."""
    depth = model.spec.encoder.num_layers
    if run.vector_layers is not None and run.vector_layers > depth:
        raise InputError(f"vector_layers: {run.vector_layers} are more than the student's {depth}")
    layers = run.vector_layers or min(_PUBLISHED_LAYERS, depth)
    return PairHead(labels=1 if classes <= 2 else classes, layers=layers, hidden=run.head_size)


def _apart(run: SiameseDistillation, model: Model, rows: LabelledRows, classes: tuple[str, ...], say: Say) -> TableData:
    """The texts of each row as sequences of their own."""
    return row_data(run.base, model, replace(rows, columns=Contrast()), classes, say)


def _watch(run: SiameseDistillation, model: Model, head: PairClassifier, classes: tuple[str, ...], say: Say) -> Watch:
    """The labels' loss, and accuracy, on the rows held out, which the teacher does not read."""
    base, held, count = run.base, None, 0
    if base.held_out is not None:
        rows = read_labelled(base.held_out, base.columns)
        held, count = _apart(run, model, rows, classes, say), len(rows)
    nothing = np.zeros((count, len(classes) or 1), np.float32)
    objective = PairDistillation(model.encoder, head, nothing, replace(run.soft, soft=0.0, hard=1.0), base.regression)
    return watching(base, objective, held, str(model.device), ("hard", "accuracy"))
