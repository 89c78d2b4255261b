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
    lengths = [len(ids) for ids in contents]
    if overflow != "chunk":
        check_lengths(lengths, room, overflow, "texts", remedy="overflow='chunk' reads them whole")
    if overflow != "chunk" or max(lengths, default=0) <= room:
        return Pieces([ids[:room] for ids in contents], np.arange(len(contents)), np.ones(len(contents)), len(contents))
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


def check_lengths(lengths: Sequence[int], room: int, overflow: Overflow, what: str, remedy: str = "shorten them") -> None:
    """Count what is longer than `room`, and tell of it or refuse it.

    Raises:
        InputError: something is longer under "error"; the message gives the first and the count. An
            `overflow` that is neither "error" nor "cut".
    """
    if overflow not in ("error", "cut"):
        raise InputError(f"overflow={overflow!r} is not supported here; supported: 'error', 'cut'")
    long = [i for i, length in enumerate(lengths) if length > room]
    if not long:
        return
    count = f"{len(long)} of {len(lengths)} {what}"
    if overflow == "error":
        first = f"the first is number {long[0]} with {lengths[long[0]]}"
        raise InputError(f"{count} have more than {room} tokens; {first}; {remedy}, overflow='cut' cuts them")
    lost = sum(lengths[i] - room for i in long)
    warnings.warn(
        f"{count} were cut to {room} tokens ({lost} tokens left out); {remedy}, overflow='error' refuses them",
        CutWarning,
        stacklevel=4,
    )


def _shared(ids: np.ndarray, prompt: np.ndarray | None) -> int:
    """How many ids the two begin with alike: a prompt's last token may have grown together with the text."""
    if prompt is None:
        return 0
    least = min(len(ids), len(prompt))
    differ = np.flatnonzero(ids[:least] != prompt[:least])
    return int(differ[0]) if len(differ) else least
