"""From a cross-encoder to two encodings and a head on them: Distilled Sentence Embedding, and the scoring of many candidates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bothways.config import from_json
from bothways.data.loader import Loader
from bothways.data.table import Contrast, LabelledRows, TableData, TextPair, read_labelled
from bothways.encoder.initialisation import initialise
from bothways.errors import InputError
from bothways.families.family import Heads
from bothways.files import replacing
from bothways.model.batching import run as encode
from bothways.model.folder import load
from bothways.model.model import Model
from bothways.objectives.distillation.pairs import PairClassifier, PairDistillation, PairHead
from bothways.recipes.carrying_out import Say, Trained, averages, carry_out, claim
from bothways.recipes.distilling_tasks import beginning, soft_labels
from bothways.recipes.finetuning import labelled, row_data
from bothways.recipes.runs import SiameseDistillation
from bothways.training import record
from bothways.training.settings import Watch
from bothways.training.speed import gemm_rate
from bothways.training.team import team

# The head's weights, in the run's folder beside `model/`: no family of checkpoints has a place for them
PAIR_HEAD = "pair_head.safetensors"
_CLASSES = "classes"
_PUBLISHED_LAYERS = 4


def distil_siamese(run: SiameseDistillation, folder: Path, say: Say = lambda line: None, command: str = "") -> Trained:
    """Let two encodings and a head learn of labels and of a cross-encoder.

    The encoder is saved in `folder/model`, the head beside it.

    Raises:
        InputError: as `finetune`; columns that are no pair; a teacher without a classifier for these classes.
    """
    base = run.base
    if not isinstance(base.columns, TextPair):
        raise InputError("columns: two texts of a pair are expected, each of which is encoded alone")
    claim(run, folder)
    model = beginning(run).with_heads(Heads())
    rows, classes = labelled(base)
    head = PairClassifier(_head(run, model, len(classes)), model.encoder)
    initialise(head, model.spec.encoder.initialisation, model.spec.encoder.num_layers, base.training.seed)
    logits = soft_labels(run, load(run.teacher), rows, classes, say)
    objective = PairDistillation(model.encoder, head, logits, run.soft, base.regression)
    loader = Loader(_apart(run, model, rows, classes, say), base.batching, objective.prepare, base.training.seed, base.workers)
    watch = _watch(run, model, head, classes, say)
    metrics = () if base.regression else ("accuracy",)
    trained = carry_out(
        run, folder, objective, loader.open, model, watch,
        title=f"Distilling {run.teacher} to two encodings", command=command, metrics=metrics, say=say,
    )  # fmt: skip
    if team().first:
        with replacing(folder / PAIR_HEAD) as partial:
            save_file(head.state_dict(), partial, {_CLASSES: json.dumps(classes)})
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

    def vectors(self, texts: Sequence[str]) -> Float[Tensor, "texts size"]:
        """One encoding a text, whatever it is compared with.

        Raises:
            InputError: a text longer than the model reads.
        """
        assert self.model.tokenizer is not None
        rows = LabelledRows(Contrast(), tuple((text,) for text in texts), (), tuple(f"text {i}" for i in range(len(texts))))
        data = TableData(rows, self.model.tokenizer, self.model.max_seq_length)
        ids = [data[number].sequences[0] for number in range(len(data))]
        return torch.stack(encode(self.model.encoder, ids, lambda encoded, _: self.head.vectors(encoded), keep=True))

    @torch.inference_mode()
    def logits(self, u: Float[Tensor, "first size"], v: Float[Tensor, "second size"]) -> Float[Tensor, "pairs labels"]:
        """Of pairs of first and second texts; one vector on either side goes with all of the other."""
        return self.head(*torch.broadcast_tensors(u, v)).float()


def load_siamese(folder: Path) -> PairScorer:
    """What a finished run has trained, in evaluation mode.

    Raises:
        InputError: no such run, one that is not finished, or a head of another shape.
    """
    known, file = record.read(folder), folder / PAIR_HEAD
    if known is None or not file.exists():
        raise InputError(f"{folder}: no finished run of `bothways distil --apart`")
    run = from_json(SiameseDistillation, json.dumps(known.run), str(folder / record.NAME))
    model = load(str(folder / "model"))
    with safe_open(file, "pt") as opened:
        classes = tuple(json.loads(opened.metadata()[_CLASSES]))
    head = PairClassifier(_head(run, model, len(classes)), model.encoder)
    try:
        head.load_state_dict(load_file(file))
    except RuntimeError as error:
        raise InputError(f"{file}: does not fit the head: {str(error).splitlines()[-1].strip()}") from None
    return PairScorer(model, head.to(model.device).eval(), classes)


def _head(run: SiameseDistillation, model: Model, classes: int) -> PairHead:
    """Two classes are one output, their log odds."""
    layers = run.vector_layers or min(_PUBLISHED_LAYERS, model.spec.encoder.num_layers)
    return PairHead(labels=1 if classes <= 2 else classes, layers=layers, hidden=run.head_size)


def _apart(run: SiameseDistillation, model: Model, rows: LabelledRows, classes: tuple[str, ...], say: Say) -> TableData:
    """The texts of each row as sequences of their own."""
    return row_data(run.base, model, replace(rows, columns=Contrast()), classes, say)


def _watch(run: SiameseDistillation, model: Model, head: PairClassifier, classes: tuple[str, ...], say: Say) -> Watch:
    """The labels' loss, and accuracy, on the rows held out, which the teacher does not read."""
    base, device = run.base, str(model.device)
    rate = gemm_rate(device, torch.float32)
    if base.held_out is None:
        return Watch(rate=rate)
    rows = read_labelled(base.held_out, base.columns)
    nothing = np.zeros((len(rows), len(classes) or 1), np.float32)
    objective = PairDistillation(model.encoder, head, nothing, replace(run.soft, soft=0.0, hard=1.0), base.regression)
    data = _apart(run, model, rows, classes, say)
    batches = list(Loader(data, base.batching, objective.prepare, base.training.seed).evaluation())
    return Watch(evaluate=lambda: averages(objective, batches, device, ("hard", "accuracy")), rate=rate)
