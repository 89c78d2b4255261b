"""Tokenised documents as samples for pretraining: cut to length, with a part held out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from bothways.data.hashing import keys
from bothways.data.reading import split_by
from bothways.data.sample import Sample
from bothways.data.shards import Shards
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError


class TokenData:
    """Documents cut into samples of at most `max_length` tokens, special tokens included; no token is left out.

    A document becomes consecutive pieces, all full but the last. Sample numbers follow documents and pieces,
    so they are the same whenever the same shards are opened with the same documents and length.

    Attributes:
        lengths: int32 [samples], special tokens included.
    """

    def __init__(
        self, shards: Shards, tokenizer: Tokenizer, max_length: int, documents: Int[np.ndarray, " chosen"] | None = None
    ) -> None:
        """Open the samples of some documents, or of all.

        Raises:
            InputError: `max_length` leaves no room for text, or the documents hold none.
        """
        self._room = max_length - tokenizer.specials_per_sequence
        if self._room < 1:
            raise InputError(
                f"max_length={max_length}: no room beside {tokenizer.specials_per_sequence} special tokens; raise it"
            )
        self._shards, self._tokenizer = shards, tokenizer
        self._documents = np.arange(len(shards.lengths)) if documents is None else documents
        tokens = shards.lengths[self._documents]
        pieces = -(-tokens // self._room)
        self._ends = np.cumsum(pieces)
        if not len(self._ends) or not self._ends[-1]:
            raise InputError(f"{shards.folder}: no text in the {len(self._documents)} documents chosen")
        self.lengths = np.full(self._ends[-1], max_length, dtype=np.int32)
        held = np.flatnonzero(pieces)
        self.lengths[self._ends[held] - 1] -= (pieces * self._room - tokens)[held].astype(np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Sample:
        place = int(np.searchsorted(self._ends, number, side="right"))
        piece = number - (int(self._ends[place - 1]) if place else 0)
        start = piece * self._room
        tokens = int(self.lengths[number]) - self._tokenizer.specials_per_sequence
        ids = self._shards.read(int(self._documents[place]), start, start + tokens)
        return Sample(number, (self._tokenizer.wrap(ids),))


def hold_out(documents: int, share: float, seed: int) -> tuple[Int[np.ndarray, " training"], Int[np.ndarray, " heldout"]]:
    """Divide document numbers into those to learn from and about `share` of them to measure on.

    Which side a document falls on is a function of the seed and its number, so it does not move when more
    documents are added behind it. Where chance leaves a side empty, the one nearest to it is given over.

    Raises:
        InputError: a share outside (0, 1), or fewer than two documents.
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"a held-out share of {share} is not between 0 and 1")
    if documents < 2:
        raise InputError(
            f"{documents} document cannot be divided into training and held-out text: give more, "
            f"or split it: {split_by('paragraph')}"
        )
    draws = keys(seed, items=np.arange(documents))
    held = draws < np.uint64(share * 2.0**64)
    if not held.any():
        held[np.argmin(draws)] = True
    if held.all():
        held[np.argmax(draws)] = False
    return np.flatnonzero(~held), np.flatnonzero(held)
