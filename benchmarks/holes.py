"""Which exception belongs in the hole of a function, as a masked language model says it: a token stands there.

Fine-tuned on this question (a cloze, as in arXiv 2001.07676, but with the loss over the whole vocabulary), the model reads the
answer where it has learned to read tokens, and no fresh classifier has to be learned from the few handlers that there are. It
sees the words around the hole, in training at three widths, and some of the other tokens hidden, anew in each pass, so that rows
are not soon known by heart (docs/log.md).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from bothways.config import to_json
from bothways.data.code.examples import HOLE
from bothways.data.loader import Loader
from bothways.data.masking import Masking
from bothways.data.packing import SampleCount
from bothways.data.sample import Epochs, Sample
from bothways.data.tokenizer import Tokenizer
from bothways.data.vocabulary import Vocabulary
from bothways.layers.heads import MaskedLm
from bothways.model.folder import load
from bothways.model.model import Model
from bothways.objectives.masked_lm import MaskedInputs, MaskedLanguageModeling, PrepareMasked
from bothways.training.loop import train
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Fraction, Linear, Steps
from bothways.training.settings import TrainingConfig

# Words on either side, in training and when asked
WIDTHS = (12, 24, 48)
ASKED = 48
# The other tokens that are hidden
HIDDEN = Masking(rate=0.3, mask=1.0, random=0.0)
# Over the rows at all three widths
PASSES = 2
RATE = 3e-4
_SAMPLES = 32
_SETTINGS = TrainingConfig(
    optimizer=AdamW(lr=RATE, weight_decay=0.01),
    schedule=Linear(warmup=Fraction(of=0.1)),
    budget=Steps(count=1),
    log_every=20,
)


def around(function: str, width: int) -> str:
    """The words of a function that are near its hole, `width` of them on either side."""
    words = function.split(" ")
    hole = words.index(HOLE)
    first = max(hole - width, 0)
    return " " * (first > 0) + " ".join(words[first : hole + width + 1])


@dataclass(frozen=True, eq=False)
class Holes:
    """Samples: the words around a hole, and the token that belongs there."""

    ids: list[np.ndarray]
    tokens: list[int]

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(one) for one in self.ids])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> Sample:
        return Sample(number, (self.ids[number],), label=self.tokens[number])


@dataclass(frozen=True)
class PrepareHoles:
    """Hides other tokens, anew in each epoch, and asks for the hole alone."""

    hide: PrepareMasked

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> MaskedInputs:
        rows = np.flatnonzero(np.concatenate([sample.sequences[0] for sample in samples]) == self.hide.vocabulary.mask_id)
        tokens = torch.tensor([cast("int", sample.label) for sample in samples])
        return replace(self.hide(samples, seed, epoch), rows=torch.from_numpy(rows), labels=tokens, hidden=len(rows))


@dataclass(frozen=True, eq=False)
class Cloze:
    """A masked language model that is asked for one of some classes.

    Attributes:
        tokens: the first token of each class, which no other class begins with.
    """

    model: Model
    tokens: dict[str, int]

    @classmethod
    def of(cls, folder: Path, classes: Sequence[str]) -> Cloze:
        model = load(folder, device="cpu")
        assert model.tokenizer is not None
        tokens = {one: int(model.tokenizer.encode([f" {one}"], specials=False)[0][0]) for one in classes}
        if len(set(tokens.values())) < len(tokens):
            raise SystemExit(f"{folder}: two exceptions begin with the same token: {tokens}")
        return cls(model, tokens)

    @property
    def tokenizer(self) -> Tokenizer:
        assert self.model.tokenizer is not None
        return self.model.tokenizer

    def encoded(self, rows: Sequence[dict[str, Any]], width: int) -> list[np.ndarray]:
        """The words around each hole, a mask token in it; fewer where they are longer than the model reads."""
        return [self._encoded(row["function"], width) for row in rows]

    def _encoded(self, function: str, width: int) -> np.ndarray:
        ids = self.tokenizer.encode([around(function, width).replace(f" {HOLE}", self.tokenizer.tokens["mask_token"])])[0]
        if (ids == self.tokenizer.mask_id).sum() != 1:
            raise SystemExit(f"a function with a mask token of its own: {function}")
        return ids if len(ids) <= self.model.max_seq_length else self._encoded(function, width - 1)

    def answers(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """The likeliest class for each hole."""
        ids = self.encoded(rows, ASKED)
        hidden = self.model.eval().hidden_states(ids)
        holes = [one[np.flatnonzero(row == self.tokenizer.mask_id)[0]] for one, row in zip(hidden, ids, strict=True)]
        with torch.no_grad():
            logits = self.model.masked_lm(torch.from_numpy(np.stack(holes)))[:, list(self.tokens.values())]
        return [list(self.tokens)[int(one)] for one in logits.argmax(dim=1)]


def fine_tuned(model: Path, rows: Sequence[dict[str, Any]], folder: Path, seed: int, scale: float = 1.0) -> Cloze:
    """A masked language model, fine-tuned on rows with a `function` and a `label`; or that of the folder, if it is done."""
    cloze = Cloze.of(model, sorted({row["label"] for row in rows}))
    data = Holes(
        [ids for width in WIDTHS for ids in cloze.encoded(rows, width)],
        [cloze.tokens[row["label"]] for _ in WIDTHS for row in rows],
    )
    head = cast("MaskedLm", cloze.model.heads["masked_lm"])
    vocabulary = Vocabulary.of(cloze.tokenizer)
    objective = MaskedLanguageModeling(cloze.model.encoder, head, HIDDEN, vocabulary)
    loader = Loader(data, SampleCount(samples=_SAMPLES), PrepareHoles(PrepareMasked(HIDDEN, vocabulary)), seed)
    steps = max(round(scale * PASSES * len(data) / _SAMPLES), 4)
    settings = replace(_SETTINGS, budget=Steps(count=steps), seed=seed)
    run = {"model": cloze.model.fingerprint, "rows": len(rows), "widths": WIDTHS, "hidden": HIDDEN.rate}
    run["training"] = json.loads(to_json(settings))
    train(objective, loader.open, settings, folder, device="cpu", run=json.dumps(run))
    return cloze
