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
        self._room = room_of(tokenizer, max_length)
        self._shards, self._tokenizer = shards, tokenizer
        self._documents = np.arange(len(shards.lengths)) if documents is None else documents
        self._ends, lengths = cut(shards.lengths[self._documents], self._room)
        if not len(lengths):
            raise InputError(f"{shards.folder}: no text in the {len(self._documents)} documents chosen")
        self.lengths = lengths + np.int32(tokenizer.specials_per_sequence)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Sample:
        place = int(np.searchsorted(self._ends, number, side="right"))
        piece = number - (int(self._ends[place - 1]) if place else 0)
        start = piece * self._room
        tokens = int(self.lengths[number]) - self._tokenizer.specials_per_sequence
        ids = self._shards.read(int(self._documents[place]), start, start + tokens)
        return Sample(number, (self._tokenizer.wrap(ids),))


def room_of(tokenizer: Tokenizer, max_length: int) -> int:
    """The tokens of a text that a sample has room for, beside the special ones around it.

    Raises:
        InputError: there is none.
    """
    room = max_length - tokenizer.specials_per_sequence
    if room < 1:
        raise InputError(f"max_length={max_length}: no room beside {tokenizer.specials_per_sequence} special tokens; raise it")
    return room


def cut(tokens: Int[np.ndarray, " texts"], room: int) -> tuple[Int[np.ndarray, " texts"], Int[np.ndarray, " pieces"]]:
    """Cut texts of some tokens into pieces of at most `room`, all full but the last of each text.

    Returns:
        the number of pieces up to the end of each text, and the int32 tokens of each piece.
    """
    pieces = -(-tokens // room)
    ends = np.cumsum(pieces, dtype=np.int64)
    lengths = np.full(int(ends[-1]) if len(ends) else 0, room, dtype=np.int32)
    held = np.flatnonzero(pieces)
    lengths[ends[held] - 1] -= (pieces * room - tokens)[held].astype(np.int32)
    return ends, lengths


def of_length(tokens: Int[np.ndarray, " documents"], at_least: int, at_most: int | None) -> Int[np.ndarray, " chosen"]:
    """The numbers of the documents that have `at_least` to `at_most` tokens, special tokens not counted."""
    return np.flatnonzero((tokens >= at_least) & (tokens <= (tokens.max(initial=0) if at_most is None else at_most)))


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
