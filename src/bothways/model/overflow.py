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
    """Content ids that fit, the text each piece belongs to, and how much of that text it holds."""

    ids: list[np.ndarray]
    owners: np.ndarray
    weights: np.ndarray
    texts: int

    def join(self, vectors: Tensor) -> Tensor:
        """One vector a text [texts, size]: its pieces' vectors, averaged by length."""
        if len(self.ids) == self.texts:
            return vectors
        owners = torch.from_numpy(self.owners)
        weights = torch.from_numpy(self.weights).to(vectors.dtype)
        total = torch.zeros(self.texts).index_add_(0, owners, weights)
        return torch.zeros(self.texts, vectors.shape[1]).index_add_(0, owners, vectors * weights[:, None]) / total[:, None]


class CutWarning(UserWarning):
    """Texts were longer than the model reads, and their ends were left out."""


def fit(contents: Sequence[np.ndarray], room: int, overflow: Overflow, prompt: np.ndarray | None = None) -> Pieces:
    """Bring content ids to at most `room` tokens each.

    Args:
        prompt: the ids that the contents begin with; every piece of a text begins with them, too.

    Raises:
        InputError: under "error", a text that is longer; the message gives the first and the count. Under
            "chunk", a prompt that leaves no room.
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
        return Pieces([ids[:room] for ids in contents], np.arange(len(contents)), np.ones(len(contents)), len(contents))
    if overflow == "error":
        raise InputError(
            f"{len(long)} of {len(contents)} texts have more than {room} tokens; "
            f"the first is number {long[0]} with {len(contents[long[0]])}"
        )
    pieces, owners, weights = [], [], []
    for owner, ids in enumerate(contents):
        lead = ids[: _shared(ids, prompt)]
        step = room - len(lead)
        if step < 1:
            raise InputError(f"the prompt has {len(lead)} tokens and leaves no room for text: {room} are read at a time")
        for first in range(len(lead), max(len(ids), len(lead) + 1), step):
            part = ids[first : first + step]
            pieces.append(np.concatenate([lead, part]))
            owners.append(owner)
            weights.append(max(len(part), 1))
    return Pieces(pieces, np.array(owners), np.array(weights), len(contents))


def _shared(ids: np.ndarray, prompt: np.ndarray | None) -> int:
    """How many ids the two begin with alike: a prompt's last token may have grown together with the text."""
    if prompt is None:
        return 0
    least = min(len(ids), len(prompt))
    differ = np.flatnonzero(ids[:least] != prompt[:least])
    return int(differ[0]) if len(differ) else least
