"""One training example as token ids, and what the loader asks of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Int

Epochs: TypeAlias = int | Int[np.ndarray, " samples"]
"""In which pass over its source a sample is read: one number for all samples, or one for each (in a mixture)."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Token ids of one example.

    Attributes:
        id: its number in the data set, the same in every epoch.
        sequences: int32 [tokens] each, special tokens included: one for masked language modelling
            and classification; anchor, positive and negatives for contrastive learning.
        types: the token types of each sequence; None means all 0.
        label: a class number or a score.
        marks: for each token of the first sequence, what its objective has to know of it beside; None: nothing.
    """

    id: int
    sequences: tuple[np.ndarray, ...]
    types: tuple[np.ndarray, ...] | None = None
    label: float | int | None = None
    marks: np.ndarray | None = None


@runtime_checkable
class Samples(Protocol):
    """A data set: numbered samples whose lengths are known before they are read."""

    @property
    def lengths(self) -> np.ndarray:
        """int [samples], the tokens of all sequences of each sample."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Sample: ...
