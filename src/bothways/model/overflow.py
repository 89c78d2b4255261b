"""Texts longer than a model reads: counted, refused or read in pieces, never cut in silence."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bothways.errors import InputError

Overflow = Literal["cut", "error", "chunk"]


@dataclass(frozen=True, eq=False)
class Pieces:
    """Content ids that fit, and the text each piece belongs to."""

    ids: list[np.ndarray]
    owners: np.ndarray
    texts: int

    def join(self, vectors: Tensor) -> Tensor:
        """One vector a text [texts, size]: its pieces' vectors, averaged by length."""
        if len(self.ids) == self.texts:
            return vectors
        owners = torch.from_numpy(self.owners)
        weights = torch.tensor([max(len(ids), 1) for ids in self.ids], dtype=vectors.dtype)
        total = torch.zeros(self.texts).index_add_(0, owners, weights)
        return torch.zeros(self.texts, vectors.shape[1]).index_add_(0, owners, vectors * weights[:, None]) / total[:, None]


class CutWarning(UserWarning):
    """Texts were longer than the model reads, and their ends were left out."""


def fit(contents: Sequence[np.ndarray], room: int, overflow: Overflow) -> Pieces:
    """Bring content ids to at most `room` tokens each.

    Raises:
        InputError: under "error", a text that is longer; the message gives the first and the count.
    """
    long = [i for i, ids in enumerate(contents) if len(ids) > room]
    if not long or overflow == "cut":
        if long:
            lost = sum(len(contents[i]) - room for i in long)
            warnings.warn(
                f"{len(long)} of {len(contents)} texts were cut to {room} tokens ({lost} tokens left out); "
                "overflow='chunk' reads them whole, overflow='error' refuses them",
                CutWarning,
                stacklevel=3,
            )
        return Pieces([ids[:room] for ids in contents], np.arange(len(contents)), len(contents))
    if overflow == "error":
        raise InputError(
            f"{len(long)} of {len(contents)} texts have more than {room} tokens; the first is number {long[0]} with {len(contents[long[0]])}"
        )
    pieces = [ids[first : first + room] for ids in contents for first in range(0, max(len(ids), 1), room)]
    owners = np.repeat(np.arange(len(contents)), [max(-(-len(ids) // room), 1) for ids in contents])
    return Pieces(pieces, owners, len(contents))
