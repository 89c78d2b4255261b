"""Two stretches of sentences as one sample: does the second follow the first (BERT), are they in their order (ALBERT)?

As in the published code, which walks through each document once for every copy of the text: sentences are gathered up to the
length of a sample and cut in two between two of them. Where the second part comes from elsewhere, the sentences it would have
been are put back, and begin the next pair. What a pair is made of is a function of the seed, the copy and the documents; it is
planned when the data is opened, so that lengths are known beforehand, and read in the loader's workers. What is masked in it is
new in every epoch.

Sentences are told from tokens (`data/segments.py`). One that is longer than a sample is cut into pieces of half a sample first,
which the published code does not do: it would lose all that does not fit.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
from jaxtyping import Int
from pydantic import Field, PositiveInt

from bothways.config import config
from bothways.data.masking import Share
from bothways.data.order import generator
from bothways.data.sample import Sample
from bothways.data.segments import Ends, Sentences, in_pieces
from bothways.data.shards import Shards
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError

Range: TypeAlias = tuple[int, int, int]
"""A document (its place among those chosen), and the tokens of it from one place to another."""
Pair: TypeAlias = tuple[Range, Range, int]
"""Two ranges and a label."""

# How often another document is drawn where the first one drawn is the pair's own
_TRIES = 10


@config
class NextSentence:
    """BERT's second task (arXiv 1810.04805 and its code): 0 where the second part follows the first, 1 where it is random.

    Half the pairs are random, and all of those whose stretch is a single sentence.

    Attributes:
        short: the share of documents (each time one is read) whose pairs are of a random smaller length.
        copies: how many times the text is made into pairs; an epoch goes through all of them.
        sentences: what ends one; "lines" for code (`data/code`), where the published sentence is a logical line (2001.00059).
    """

    type: Literal["next_sentence"] = "next_sentence"
    short: Share = 0.1
    copies: PositiveInt = 10
    sentences: Ends = "signs"


@config
class SentenceOrder:
    """ALBERT's second task (arXiv 1909.11942 and its code): 0 where two parts are in their order, 1 where they are swapped.

    Attributes:
        short, copies, sentences: as in `NextSentence`.
        single: what a stretch of a single sentence becomes. `random`, as published: its second part is of another document, with
            the label 1. `divided`: it is cut between two of its tokens, and these parts stand in order or swapped; a single token
            cannot be, and is paired at random.
    """

    type: Literal["sentence_order"] = "sentence_order"
    short: Share = 0.1
    copies: PositiveInt = 40
    single: Literal["random", "divided"] = "random"
    sentences: Ends = "signs"


PairTask: TypeAlias = Annotated[NextSentence | SentenceOrder, Field(discriminator="type")]


class PairData:
    """Documents as samples of two parts: [CLS] A [SEP] B [SEP] with token types, and a label.

    Attributes:
        lengths: int32 [samples], special tokens included.
    """

    def __init__(
        self,
        shards: Shards,
        tokenizer: Tokenizer,
        max_length: int,
        documents: Int[np.ndarray, " chosen"],
        task: NextSentence | SentenceOrder,
        seed: int,
        copies: int,
    ) -> None:
        """Plan all pairs of some documents, each document read `copies` times.

        Raises:
            InputError: `max_length` leaves no room for two parts, or the documents hold no text.
        """
        room = max_length - tokenizer.specials_per_pair
        if room < 2:
            raise InputError(
                f"max_length={max_length}: no room for two parts beside {tokenizer.specials_per_pair} special tokens"
            )
        self._shards, self._tokenizer = shards, tokenizer
        self._documents = documents[shards.lengths[documents] > 0]
        if not len(self._documents):
            raise InputError(f"{shards.folder}: no text in the {len(documents)} documents chosen")
        ends = self._sentences(Sentences.of(tokenizer, task.sentences), room)
        rows = array("i")
        for copy in range(copies):
            for first, second, label in plan(ends, task, room, draws(seed, copy)):
                rows.extend((*first, *second, label))
        self._rows = np.frombuffer(rows, dtype=np.int32).reshape(-1, 7)
        sizes = self._rows[:, 2] - self._rows[:, 1] + self._rows[:, 5] - self._rows[:, 4]
        self.lengths = sizes + np.int32(tokenizer.specials_per_pair)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Sample:
        row = self._rows[number].tolist()
        ids, types = self._tokenizer.join(self._read(*row[:3]), self._read(*row[3:6]))
        return Sample(number, (ids,), (types,), row[6])

    def _sentences(self, rule: Sentences, room: int) -> list[Sequence[int]]:
        """Where the sentences of each document end; one that is too long is cut so that two pieces make a pair."""
        found: list[Sequence[int]] = []
        for place, document in enumerate(self._documents):
            ends = rule.ends(self._read(place, 0, int(self._shards.lengths[document])))
            found.append(array("i", in_pieces(ends, room, room // 2).tolist()))
        return found

    def _read(self, place: int, start: int, end: int) -> Int[np.ndarray, " tokens"]:
        return self._shards.read(int(self._documents[place]), start, end)


def draws(seed: int, copy: int) -> Callable[[], float]:
    """Numbers in [0, 1) for one copy of the text."""
    return generator(seed, copy, 0, 0, 1).random


def plan(
    documents: Sequence[Sequence[int]], task: NextSentence | SentenceOrder, room: int, draw: Callable[[], float]
) -> Iterator[Pair]:
    """The pairs of one copy of some documents, of each of which the ends of its sentences are given.

    Args:
        room: tokens of both parts together.
        draw: the next random number in [0, 1).
    """
    for number in range(len(documents)):
        yield from _Document(documents, number, task, room, draw).pairs()


@dataclass(frozen=True, eq=False)
class _Document:
    """One walk through a document."""

    documents: Sequence[Sequence[int]]
    number: int
    task: NextSentence | SentenceOrder
    room: int
    draw: Callable[[], float]

    def pairs(self) -> Iterator[Pair]:
        ends = self.documents[self.number]
        target = self.room if self.draw() >= self.task.short else 2 + self._below(self.room - 1)
        first = 0  # of the sentences of the stretch
        while first < len(ends):
            start, last = self._start(ends, first), first
            while last < len(ends) - 1 and ends[last] - start < target:
                last += 1
            pair, first = self._pair(first, last, target)
            yield self._truncated(pair)

    def _pair(self, first: int, last: int, target: int) -> tuple[Pair, int]:
        """The pair of a stretch of sentences, and the sentence that the next stretch begins with."""
        ends, single = self.documents[self.number], first == last
        parting = first if single else first + self._below(last - first)
        start, middle = self._start(ends, first), ends[parting]
        random = single or (isinstance(self.task, NextSentence) and self.draw() < 0.5)
        if single and isinstance(self.task, SentenceOrder) and self.task.single == "divided" and middle - start > 1:
            random, middle = False, start + 1 + self._below(middle - start - 1)
        own: Range = (self.number, start, middle)
        if random:
            return (own, self._elsewhere(target - (middle - start)), 1), parting + 1
        rest: Range = (self.number, middle, ends[last])
        swapped = isinstance(self.task, SentenceOrder) and self.draw() < 0.5
        return ((rest, own, 1) if swapped else (own, rest, 0)), last + 1

    def _elsewhere(self, wanted: int) -> Range:
        """Sentences of another document from a random one on, until they have as many tokens as wanted; one at least."""
        other = self._below(len(self.documents))
        for _ in range(_TRIES - 1):
            if other != self.number:
                break
            other = self._below(len(self.documents))
        ends = self.documents[other]
        first = self._below(len(ends))
        start = self._start(ends, first)
        return other, start, next((end for end in ends[first:] if end - start >= wanted), ends[-1])

    def _truncated(self, pair: Pair) -> Pair:
        """As long as there is no room, the longer part (the second, of equal ones) loses a token at one of its two ends."""
        (one, begin, end), (other, start, stop), label = pair
        lengths = [end - begin, stop - start]
        front, back = [0, 0], [0, 0]
        for _ in range(sum(lengths) - self.room):
            longer = 0 if lengths[0] > lengths[1] else 1
            lengths[longer] -= 1
            (front if self.draw() < 0.5 else back)[longer] += 1
        return (one, begin + front[0], end - back[0]), (other, start + front[1], stop - back[1]), label

    def _below(self, limit: int) -> int:
        return int(self.draw() * limit)

    @staticmethod
    def _start(ends: Sequence[int], number: int) -> int:
        return ends[number - 1] if number else 0
