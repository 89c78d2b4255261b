"""Samples of whole sentences, one after another: FULL-SENTENCES and DOC-SENTENCES (RoBERTa, arXiv 1907.11692).

Where sentences end is told from tokens (`data/segments.py`), once, when the data is opened, so that lengths are known beforehand.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from bothways.config import config
from bothways.data.sample import Sample
from bothways.data.segments import Ends, Sentences, divided
from bothways.data.shards import Shards
from bothways.data.token_data import room_of
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError


@config
class WholeSentences:
    """As many sentences as there is room for, none of them cut (fairseq's `sample_break_mode: complete`).

    Attributes:
        across: the sentences of the next document follow in the same sample, behind the token that ends a text; False: a sample
            is of one document.
        sentences: what ends one; "lines" for code (`data/code`).
    """

    across: bool = True
    sentences: Ends = "signs"


class SentenceBlocks:
    """Documents as samples of whole sentences, each beginning where the one before it ends; no token is left out.

    A sentence that is longer than a sample is cut into pieces as long as one.

    Attributes:
        lengths: int32 [samples], special tokens included.
    """

    def __init__(
        self, shards: Shards, tokenizer: Tokenizer, max_length: int, documents: Int[np.ndarray, " chosen"], blocks: WholeSentences
    ) -> None:
        """Find the samples of some documents.

        Raises:
            InputError: `max_length` leaves no room for text, the documents hold none, or no token ends a text, so that nothing
                would part documents.
        """
        room = room_of(tokenizer, max_length)
        self._separator = np.array(tokenizer.template.after, dtype=np.int32)
        if blocks.across and not len(self._separator):
            raise InputError("blocks.across: no token of this tokenizer ends a text and would part two of them; set it to false")
        self._shards, self._tokenizer = shards, tokenizer
        self._documents = documents[shards.lengths[documents] > 0]
        if not len(self._documents):
            raise InputError(f"{shards.folder}: no text in the {len(documents)} documents chosen")
        rule = Sentences.of(tokenizer, blocks.sentences)
        ends = [divided(rule.ends(self._read(place, 0)), room, room) for place in range(len(self._documents))]
        sizes = np.concatenate([np.diff(one, prepend=0) for one in ends])
        begins = np.zeros(len(sizes), dtype=bool)
        begins[np.cumsum([0, *map(len, ends[:-1])])] = True
        edges, lengths = gather(sizes, begins, room, len(self._separator) if blocks.across else None)
        self.lengths = (lengths + tokenizer.specials_per_sequence).astype(np.int32)
        owner, end = np.cumsum(begins) - 1, np.concatenate(ends)
        first, last = edges[:-1], edges[1:] - 1
        self._rows = np.stack([owner[first], end[first] - sizes[first], owner[last], end[last]], axis=1)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Sample:
        first, start, last, end = self._rows[number].tolist()
        parts: list[Int[np.ndarray, " tokens"]] = []
        for place in range(first, last + 1):
            parts += [self._separator] if parts else []
            parts.append(self._read(place, start if place == first else 0, end if place == last else None))
        return Sample(number, (self._tokenizer.wrap(np.concatenate(parts)),))

    def _read(self, place: int, start: int, end: int | None = None) -> Int[np.ndarray, " tokens"]:
        document = int(self._documents[place])
        return self._shards.read(document, start, int(self._shards.lengths[document]) if end is None else end)


def gather(
    sizes: Int[np.ndarray, " sentences"], begins: Bool[np.ndarray, " sentences"], room: int, separator: int | None
) -> tuple[Int[np.ndarray, " edges"], Int[np.ndarray, " blocks"]]:
    """Gather sentences into blocks of at most `room` tokens, each as long as the next sentence still fits.

    Args:
        sizes: tokens of each sentence, none over `room`.
        begins: whether a document begins with it.
        separator: tokens between two documents of a block; None: no block is of two.

    Returns:
        the first sentence of each block and, last, their number; the tokens of each block, separators included.
    """
    total = np.cumsum(sizes + begins * (separator or 0))
    heads = np.append(np.flatnonzero(begins), len(sizes))
    edges, lengths = [0], []
    while edges[-1] < len(sizes):
        first = edges[-1]
        before = total[first] - sizes[first]
        behind = int(np.searchsorted(total, before + room, side="right"))
        if separator is None:
            behind = min(behind, int(heads[np.searchsorted(heads, first, side="right")]))
        edges.append(behind)
        lengths.append(int(total[behind - 1] - before))
    return np.array(edges), np.array(lengths)
