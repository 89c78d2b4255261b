"""Where is the wrong variable, and which one should stand there? Two pointers at the tokens of a text (arXiv 2001.00059)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Bool, Int, Num
from torch import Tensor

from bothways.data.code.pointers import CANDIDATE, ERROR, TARGET
from bothways.data.sample import Epochs, Sample
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.layers.pointer import Pointer
from bothways.objectives.objective import Objective
from bothways.ops.segment import segment_argmax, segment_log_softmax
from bothways.ragged import Batch

# The published loss takes no probability to be less
_LEAST = math.log(1e-10)


@dataclass(frozen=True, eq=False)
class RepairInputs:
    """A batch of functions, some with a bug.

    Attributes:
        candidates, targets: tokens a pointer may point at, and those a repair is right to point at.
        errors: the row of each sequence's error; that of its first token where it has none.
    """

    batch: Batch
    candidates: Bool[Tensor, " tokens"]
    targets: Bool[Tensor, " tokens"]
    errors: Int[Tensor, " sequences"]

    @property
    def tokens(self) -> int:
        return self.batch.tokens

    @property
    def firsts(self) -> Int[Tensor, " sequences"]:
        return self.batch.ragged.starts[:-1].long()

    def to(self, device: torch.device | str) -> RepairInputs:
        moved = (one.to(device, non_blocking=True) for one in (self.candidates, self.targets, self.errors))
        return RepairInputs(self.batch.to(device), *moved)


@dataclass(frozen=True)
class PrepareRepair:
    """Packs samples with marks (`data/code/pointers.py`), shortest first. Raises InputError for one without."""

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> RepairInputs:
        ordered = sorted(samples, key=lambda sample: len(sample.sequences[0]))
        kept: list[np.ndarray] = []
        for sample in ordered:
            if sample.marks is None:
                raise InputError(f"sample {sample.id} has no marks of candidates and errors; open the rows as `PointerData`")
            kept.append(sample.marks)
        batch = Batch.of([sample.sequences[0] for sample in ordered], samples=[sample.id for sample in ordered])
        marks = torch.from_numpy(np.concatenate(kept))
        # a sequence without an error has its mark, if that is what it is called, on its first token
        places = [int(np.flatnonzero(one & ERROR)[0]) if (one & ERROR).any() else 0 for one in kept]
        errors = torch.tensor(places) + batch.ragged.starts[:-1]
        return RepairInputs(batch, (marks & CANDIDATE).bool(), (marks & TARGET).bool(), errors)


class LocalizationAndRepair(Objective[RepairInputs]):
    """Cross-entropy in nats of two pointers. One without padding: each is a distribution over the tokens of its own text.

    Sums, as published: `location_loss`, at the first token where there is no error; `repair_loss`, summed over all the places of
    the right variable, 0 without an error; `accuracy`: was it told whether there is one? Of texts without an error,
    `true_positive`: how many are told to have none. Of texts with one, `localization` and `repair`: was the right place
    pointed at? and `joint`: both. (The published code takes the two losses' sum; they are weighted alike here.)
    """

    weights: Mapping[str, float] = MappingProxyType({"location_loss": 1.0, "repair_loss": 1.0})

    def __init__(self, encoder: Encoder, head: Pointer) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.prepare = PrepareRepair()

    def counts(self, inputs: RepairInputs) -> dict[str, Num[Tensor, ""]]:
        sequences = torch.tensor(inputs.batch.ragged.sequences)
        buggy = (inputs.errors != inputs.firsts).sum()
        return {
            **dict.fromkeys(("location_loss", "repair_loss", "accuracy"), sequences),
            "true_positive": sequences.to(buggy.device) - buggy,
            **dict.fromkeys(("localization", "repair", "joint"), buggy),
        }

    def forward(self, inputs: RepairInputs) -> dict[str, Num[Tensor, ""]]:
        ragged = inputs.batch.ragged
        logits = self.head(self.encoder(inputs.batch).hidden, ragged, inputs.candidates)
        odds = segment_log_softmax(logits, ragged).clamp(min=_LEAST)
        location, repair = (segment_argmax(logits[:, pointer], ragged) for pointer in (0, 1))
        buggy, told = inputs.errors != inputs.firsts, location != inputs.firsts
        found, mended = buggy & (location == inputs.errors), buggy & inputs.targets[repair]
        return {
            "location_loss": -odds[inputs.errors, 0].sum(),
            "repair_loss": -odds[inputs.targets, 1].sum(),
            "accuracy": (told == buggy).sum(),
            "true_positive": (~told & ~buggy).sum(),
            "localization": found.sum(),
            "repair": mended.sum(),
            "joint": (found & mended).sum(),
        }

    def flops(self, inputs: RepairInputs) -> float:
        ragged = inputs.batch.ragged
        return self.encoder.flops(ragged) + self.head.flops(ragged)
