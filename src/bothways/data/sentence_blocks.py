"""Samples of whole sentences, one after another: FULL-SENTENCES and DOC-SENTENCES (RoBERTa, arXiv 1907.11692).

Where sentences end is told from tokens (`data/segments.py`), once, when the data is opened, so that lengths are known beforehand.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int

from bothways.config import config
from bothways.data.sample import Sample
from bothways.data.segments import Ends, Sentences, in_pieces
from bothways.data.shards import Shards
from bothways.data.token_data import room_of
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError


@config
class WholeSentences:
    """As many sentences as there is room for (fairseq's `sample_break_mode: complete`); only one longer than a sample is cut.

    Attributes:
        across: the sentences of the next document follow in the same sample, behind the token that ends a text; False: a sample
            is of one document.
        sentences: what ends one; "lines" for code (`data/code`).
    """

    across: bool = True
    sentences: Ends = "signs"

    def rule(self, tokenizer: Tokenizer) -> Sentences:
        """Which tokens end a sentence.

        Raises:
            InputError: none does, or no token ends a text, so that nothing would part two of them.
        """
        if self.across and not len(tokenizer.after):
            raise InputError("blocks.across: no token of this tokenizer ends a text and would part two of them; set it to false")
        found = Sentences.of(tokenizer, self.sentences)
        if not found.final.any():
            raise InputError(f"blocks.sentences: no token of this tokenizer ends a sentence by {self.sentences}")
        return found


class SentenceBlocks:
    """Documents as samples of whole sentences, each beginning where the one before it ends; no token is left out.

    A sentence that is longer than a sample is cut into pieces as long as one.

    Attributes:
        lengths: int32 [samples], special tokens included.
    """

    def __init__(
        self, shards: Shards, tokenizer: Tokenizer, max_length: int, documents: Int[np.ndarray, " chosen"], blocks: WholeSentences
    ) -> None:
        """Find the samples of some documents, all of whose tokens are read for it.

        Raises:
            InputError: `max_length` leaves no room for text, the documents hold none, or as `WholeSentences.rule`.
        """
        room, rule = room_of(tokenizer, max_length), blocks.rule(tokenizer)
        self._shards, self._tokenizer = shards, tokenizer
        self._documents = documents[shards.lengths[documents] > 0]
        if not len(self._documents):
            raise InputError(f"{shards.folder}: no text in the {len(documents)} documents chosen")
        ends = (in_pieces(rule.ends(self._read(place, 0)), room, room) for place in range(len(self._documents)))
        rows = array("q")
        for row in gather(ends, room, len(tokenizer.after) if blocks.across else None):
            rows.extend(row)
        self._rows = np.frombuffer(rows, dtype=np.int64).reshape(-1, 5)
        self.lengths = (self._rows[:, 4] + tokenizer.specials_per_sequence).astype(np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Sample:
        first, start, last, end, _ = self._rows[number].tolist()
        parts: list[Int[np.ndarray, " tokens"]] = []
        for place in range(first, last + 1):
            parts += [self._tokenizer.after] if parts else []
            parts.append(self._read(place, start if place == first else 0, end if place == last else None))
        return Sample(number, (self._tokenizer.wrap(np.concatenate(parts)),))

    def _read(self, place: int, start: int, end: int | None = None) -> Int[np.ndarray, " tokens"]:
        document = int(self._documents[place])
        return self._shards.read(document, start, int(self._shards.lengths[document]) if end is None else end)


def gather(documents: Iterable[np.ndarray], room: int, separator: int | None) -> Iterator[tuple[int, int, int, int, int]]:
    """Gather sentences into blocks of at most `room` tokens, each as long as the next sentence still fits.

    Args:
        documents: of each one int64 [sentences], where its sentences end; none is longer than `room`.
        separator: tokens between two documents of a block; None: no block is of two.

    Yields:
        of each block the first document and its place there, the last document and the place behind it, and its tokens,
        separators included.
    """
    block: tuple[int, int, int, int, int] | None = None
    for number, ends in enumerate(documents):
        place = 0
        while place < ends[-1]:
            first, start, _, _, used = block or (number, place, 0, 0, 0)
            before = used + (separator or 0) if block else 0
            fitting = int(np.searchsorted(ends, place + room - before, side="right"))
            if fitting and ends[fitting - 1] > place:
                end = int(ends[fitting - 1])
                block, place = (first, start, number, end, before + end - place), end
            if block and (place < ends[-1] or separator is None):
                yield block
                block = None
    if block:
        yield block
