"""Pairs of stretches of sentences: beside a plain restatement of the published walk, and by their statistics."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.packed import inside

from bothways.data.loader import Loader
from bothways.data.packing import TokenBudget
from bothways.data.sample import Sample
from bothways.data.segments import in_pieces
from bothways.data.sentence_pairs import NextSentence, PairData, SentenceOrder, plan
from bothways.data.shard_writer import write_shards
from bothways.data.shards import Shards
from bothways.data.source import Document
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError

NEXT, ORDER = NextSentence(), SentenceOrder()
Sentence = list[tuple[int, int]]
Draw = Callable[[], float]


def text_of(sizes: list[list[int]]) -> list[list[Sentence]]:
    """Documents of sentences, whose tokens are told apart by document and place."""
    documents = []
    for number, sentences in enumerate(sizes):
        tokens = iter(range(sum(sentences)))
        documents.append([[(number, next(tokens)) for _ in range(size)] for size in sentences])
    return documents


def walk(
    text: list[list[Sentence]], task: NextSentence | SentenceOrder, room: int, draw: Draw
) -> list[tuple[Sentence, Sentence, int]]:
    """The published walk, on lists of tokens: gathering, cutting in two, putting back, shortening token by token."""

    def below(limit: int) -> int:
        return int(draw() * limit)

    pairs = []
    for number, document in enumerate(text):
        target = room if draw() >= task.short else 2 + below(room - 1)
        held: list[Sentence] = []
        i = 0
        while i < len(document):
            held.append(document[i])
            if i == len(document) - 1 or sum(map(len, held)) >= target:
                cut = 1 if len(held) == 1 else 1 + below(len(held) - 1)
                first, second, label = [*chain(*held[:cut])], [*chain(*held[cut:])], 0
                if len(held) == 1 or (isinstance(task, NextSentence) and draw() < 0.5):
                    label, second, other = 1, [], number
                    for _ in range(10):
                        other = below(len(text))
                        if other != number:
                            break
                    for sentence in text[other][below(len(text[other])) :]:
                        second = second + sentence
                        if len(second) >= target - len(first):
                            break
                    i -= len(held) - cut
                elif isinstance(task, SentenceOrder) and draw() < 0.5:
                    first, second, label = second, first, 1
                while len(first) + len(second) > room:
                    longer = first if len(first) > len(second) else second
                    longer.pop(0) if draw() < 0.5 else longer.pop()
                pairs.append((first, second, label))
                held = []
            i += 1
    return pairs


def ends_of(sizes: list[list[int]]) -> list[list[int]]:
    return [np.cumsum(one).tolist() for one in sizes]


documents = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=5)


@given(sizes=documents, room=st.integers(2, 20), seed=st.integers(0, 99), order=st.booleans())
def test_the_plan_is_the_published_walk(sizes: list[list[int]], room: int, seed: int, order: bool) -> None:
    """The same numbers drawn give the same tokens, labels and order of the pairs."""
    task = replace(ORDER, short=0.4) if order else replace(NEXT, short=0.4)
    expected = walk(text_of(sizes), task, room, random.Random(seed).random)
    found = list(plan(ends_of(sizes), task, room, random.Random(seed).random))

    def tokens(place: int, start: int, end: int) -> Sentence:
        return [(place, token) for token in range(start, end)]

    assert [(tokens(*one), tokens(*other), label) for one, other, label in found] == expected


def pairs_of(sizes: list[list[int]], task: NextSentence | SentenceOrder, room: int, seed: int = 0) -> list:  # type: ignore[type-arg]
    return list(plan(ends_of(sizes), task, room, random.Random(seed).random))


def test_documents_of_one_sentence_are_never_followed() -> None:
    """Reference check 1.(3): with a corpus of documents of a single segment, every pair has the label 1."""
    found = pairs_of([[5]] * 300, NEXT, 16)
    assert len(found) == 300
    assert {label for _, _, label in found} == {1}
    assert all(one[0] != other[0] for one, other, _ in found)  # 299 others: ten draws find one


def test_half_of_long_documents_are_random() -> None:
    """Reference check 1.(3): at 50 %, within a 99.9 % interval; what is not random follows.

    A document's last sentence is alone at times; that pair, whose first part ends the document, is always random and not counted.
    The last pairs of all documents cannot be left out instead: most of them follow, so it would be more than half.
    """
    found = [pair for seed in range(10) for pair in pairs_of([[3] * 400 for _ in range(20)], replace(NEXT, short=0.0), 24, seed)]
    drawn = [label for one, _, label in found if one[2] < 1200]
    assert len(drawn) > 10_000
    assert inside(sum(drawn), len(drawn), 0.5)
    for one, other, label in found:
        if label == 0:
            assert (one[0], one[2]) == (other[0], other[1])


def test_what_is_not_used_is_put_back() -> None:
    """The first parts, and second ones that follow, are the whole document in order, however many were random."""
    for seed in range(20):
        own = [pair for pair in pairs_of([[2] * 50, [2] * 50], replace(NEXT, short=0.0), 12, seed) if pair[0][0] == 0]
        taken = [place for one, other, label in own for place in ([one] if label else [one, other])]
        assert taken[0][1] == 0
        assert taken[-1][2] == 100
        assert all(before[2] == after[1] for before, after in pairwise(taken))
        assert {label for _, _, label in own} == {0, 1}


def test_a_lone_document_is_its_own_other() -> None:
    """As published: ten draws, and then it is taken all the same."""
    assert {(one[0], other[0]) for one, other, _ in pairs_of([[4] * 9], NEXT, 12)} == {(0, 0)}


def test_the_label_flips_where_the_order_does() -> None:
    """Reference check 3.(5): 1 is swapped, half of the time."""
    found = pairs_of([[3] * 600 for _ in range(10)], replace(ORDER, short=0.0), 24)
    whole = [(one, other, label) for one, other, label in found if one[0] == other[0]]
    for one, other, label in whole:
        assert label == (1 if one[1] > other[1] else 0)
        assert (one[2] == other[1]) if label == 0 else (other[2] == one[1])
    swapped = sum(label for _, _, label in whole)
    assert abs(swapped - len(whole) / 2) < 3.29 * np.sqrt(len(whole) / 4)


def test_what_albert_does_with_a_single_sentence_is_an_option() -> None:
    sizes = [[6]] * 200
    assert {(one[0] == other[0], label) for one, other, label in pairs_of(sizes, ORDER, 16)} == {(False, 1)}
    divided = pairs_of(sizes, replace(ORDER, single="divided"), 16)
    assert {(one[0] == other[0], label) for one, other, label in divided} == {(True, 0), (True, 1)}
    for one, other, label in divided:
        first, second = (other, one) if label else (one, other)
        assert (first[1], first[2], second[2]) == (0, second[1], 6)
        assert 0 < first[2] < 6
    assert {label for _, _, label in pairs_of([[1]] * 9, replace(ORDER, single="divided"), 16)} == {1}  # cannot be divided


def test_the_longer_part_is_shortened_at_both_ends() -> None:
    found = pairs_of([[40, 3] * 30], replace(NEXT, short=0.0), 30)
    assert all(one[2] - one[1] + other[2] - other[1] <= 30 for one, other, _ in found)
    lengths = [(one[2] - one[1], other[2] - other[1]) for one, other, _ in found]
    assert all(min(pair) >= 15 or max(pair) == 30 - min(pair) for pair in lengths if sum(pair) == 30)
    fronts = [one[1] % 43 for one, _, _ in found if one[2] - one[1] < 40]
    assert len(set(fronts)) > 3  # not always the same end, nor one end alone


def test_short_documents_are_as_many_as_asked() -> None:
    few = pairs_of([[2] * 200 for _ in range(200)], replace(NEXT, short=0.1), 32)
    none = pairs_of([[2] * 200 for _ in range(200)], replace(NEXT, short=0.0), 32)
    longest = {}
    for one, other, _ in few:
        longest[one[0]] = max(longest.get(one[0], 0), one[2] - one[1] + other[2] - other[1])
    short = sum(1 for length in longest.values() if length < 32)
    assert 5 <= short <= 40
    assert all(one[2] - one[1] + other[2] - other[1] == 32 for one, other, _ in none if one[2] % 400 and other[2] % 400)


# -- as a data set ---------------------------------------------------------------------------------


@pytest.fixture
def shards(letters: Tokenizer, tmp_path: Path) -> Shards:
    """Documents of words of one letter; a sentence ends at `.`, which these letters do not have, so at documents' ends."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices("abcdefghij", k=draw.randint(1, 60))) for _ in range(40)]
    write_shards((Document(text, f"{i}") for i, text in enumerate(texts)), letters, tmp_path / "shards")
    return Shards(tmp_path / "shards", letters)


def opened(
    shards: Shards, letters: Tokenizer, task: NextSentence | SentenceOrder = NEXT, seed: int = 0, copies: int = 2
) -> PairData:
    return PairData(shards, letters, 16, np.arange(40), task, seed, copies)


def test_samples_are_pairs_as_the_tokenizer_joins_them(shards: Shards, letters: Tokenizer) -> None:
    data = opened(shards, letters)
    assert len(data) == len(data.lengths)
    labels = set()
    for number in range(len(data)):
        sample = data[number]
        (ids,), types = sample.sequences, sample.types
        assert types is not None
        assert (sample.id, len(ids), len(types[0])) == (number, data.lengths[number], data.lengths[number])
        assert len(ids) <= 16
        assert (ids[0], (ids == 3).sum(), ids[-1]) == (2, 2, 3)
        middle = int(np.flatnonzero(ids == 3)[0])
        assert types[0].tolist() == [0] * (middle + 1) + [1] * (len(ids) - middle - 1)
        labels.add(sample.label)
    assert labels == {0, 1}


def test_sentences_longer_than_a_sample_are_cut_and_nothing_is_lost(shards: Shards, letters: Tokenizer) -> None:
    """Each document is one sentence here, of up to 60 tokens: the parts of one copy hold most of it, and random ones beside."""
    data = opened(shards, letters, replace(NEXT, short=0.0), copies=1)
    total = int(shards.lengths.sum())
    assert int(data.lengths.sum()) - 3 * len(data) >= 0.8 * total


@pytest.mark.parametrize(
    ("ends", "room", "expected"),
    [([3, 13], 10, [3, 13]), ([3, 14], 10, [3, 8, 13, 14]), ([25, 26], 10, [5, 10, 15, 20, 25, 26]), ([3], 2, [1, 2, 3])],
)
def test_long_sentences_are_cut_by_hand(ends: list[int], room: int, expected: list[int]) -> None:
    assert in_pieces(np.array(ends), room, room // 2).tolist() == expected


def test_pairs_are_a_function_of_seed_and_copy(shards: Shards, letters: Tokenizer) -> None:
    def rows(data: PairData) -> list[tuple[bytes, object]]:
        return [(data[i].sequences[0].tobytes(), data[i].label) for i in range(len(data))]

    first = rows(opened(shards, letters))
    assert first == rows(opened(shards, letters))
    assert first != rows(opened(shards, letters, seed=1))
    once = rows(opened(shards, letters, copies=1))
    assert first[: len(once)] == once  # more copies are put behind
    assert first[len(once) :] != once


def _ids(samples: list[Sample], seed: int, epoch: object) -> list[bytes]:
    return [sample.sequences[0].tobytes() for sample in samples]


def test_workers_read_the_same_pairs(shards: Shards, letters: Tokenizer) -> None:
    data = opened(shards, letters)
    streams = [Loader(data, TokenBudget(tokens=64), _ids, 3, workers).open() for workers in (0, 2)]
    batches = [[next(stream) for _ in range(6)] for stream in streams]
    for stream in streams:
        stream.close()
    assert batches[0] == batches[1]


def test_bad_input(shards: Shards, letters: Tokenizer) -> None:
    with pytest.raises(InputError, match="max_length=4: no room for two parts beside 3 special tokens"):
        PairData(shards, letters, 4, np.arange(40), NEXT, 0, 1)
    with pytest.raises(InputError, match="no text in the 0 documents"):
        PairData(shards, letters, 16, np.arange(0), NEXT, 0, 1)
