"""The lexicon of n-grams: its t-statistics by hand, its order, what is read back, and maximum matching."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.data.lexicon import CountedLexicon, Lexicon
from bothways.data.lexicon_building import build_lexicon, t_statistic
from bothways.data.shard_writer import write_shards
from bothways.data.shards import Shards
from bothways.data.source import Document
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import WordPiece, train_tokenizer
from bothways.errors import InputError

A, B, C, D = 5, 6, 7, 8  # of `letters`
# of 16 tokens in 3 documents, 13 pairs: "a b" 4 times, "b c" 3 times, "c a" twice, "d d" once ...
TEXTS = ("a b c a b c", "a b c a b d", "d d c a")


def shards(folder: Path, tokenizer: Tokenizer, texts: Sequence[str] = TEXTS, per_shard: int = 1 << 26) -> Shards:
    write_shards((Document(text, str(i)) for i, text in enumerate(texts)), tokenizer, folder, per_shard)
    return Shards(folder, tokenizer)


def built(folder: Path, tokenizer: Tokenizer, texts: Sequence[str] = TEXTS, **settings: object) -> Lexicon:
    return build_lexicon(
        CountedLexicon(**{"sizes": (9, 9), "at_least": 1, **settings}), [shards(folder, tokenizer, texts)], tokenizer
    )


def entries(lexicon: Lexicon) -> dict[tuple[int, ...], float]:
    return {
        tuple(gram.tolist()): float(score)
        for grams, scores in zip(lexicon.grams, lexicon.scores, strict=True)
        for gram, score in zip(grams, scores, strict=True)
    }


def test_t_statistics_by_hand(letters: Tokenizer, tmp_path: Path) -> None:
    """Reference check 15.(2). Tokens: a 5, b 4, c 4, d 3, of 16. Pairs: 5 + 5 + 3; triples: 4 + 4 + 2."""
    found = entries(built(tmp_path / "shards", letters))

    def expected(count: int, total: int, *single: int) -> float:
        share, independent = count / total, math.prod(one / 16 for one in single)
        return (share - independent) / math.sqrt(share * (1 - share) / total)

    assert found[A, B] == pytest.approx(expected(4, 13, 5, 4))
    assert found[A, B] == pytest.approx(1.7934, abs=1e-4)  # (4/13 - 20/256) / sqrt(4/13 · 9/13 / 13)
    assert found[C, A] == pytest.approx(expected(3, 13, 4, 5))
    assert found[B, C] == pytest.approx(expected(3, 13, 4, 4))
    assert found[D, D] == pytest.approx(expected(1, 13, 3, 3))
    assert found[A, B, C] == pytest.approx(expected(3, 10, 5, 4, 4))
    assert (C, D) not in found  # a document ends between them


def test_what_is_rarer_together_than_apart_is_none() -> None:
    """And a text of one n-gram alone proves nothing."""
    scores = t_statistic(np.array([1, 10]), np.array([[50, 50], [10, 10]]), 100, 100)
    assert scores[0] < 0 < scores[1]
    assert t_statistic(np.array([5]), np.array([[5, 5]]), 5, 10).tolist() == [0.0]


def test_the_best_come_first_and_their_order_is_that_of_no_document(letters: Tokenizer, tmp_path: Path) -> None:
    """Reference check 15.(2): the top K are stable under shuffling, ties included, in one shard or many."""
    draw = random.Random(3)
    texts = [" ".join(draw.choices("abcdefgh", weights=(9, 8, 7, 3, 2, 1, 1, 1), k=draw.randint(1, 30))) for _ in range(60)]
    first = built(tmp_path / "0", letters, texts, sizes=(7, 5), at_least=2)
    assert first.sizes == (7, 5)
    for scores in first.scores:
        assert (np.diff(scores) <= 0).all()
    for number in range(1, 4):
        draw.shuffle(texts)
        parts = shards(tmp_path / str(number), letters, texts, per_shard=40 * number)
        again = build_lexicon(CountedLexicon(sizes=(7, 5), at_least=2), [parts], letters)
        for ours, theirs in zip((*first.grams, *first.scores), (*again.grams, *again.scores), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    whole = entries(built(tmp_path / "whole", letters, texts, sizes=(500, 500), at_least=2))
    for length, grams in enumerate(first.grams, start=2):
        ranked = sorted((one for one in whole if len(one) == length), key=lambda one: (-whole[one], one))
        assert [tuple(gram.tolist()) for gram in grams] == ranked[: len(grams)]


def test_passes_over_the_text_change_nothing(letters: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted in several passes, and in blocks of a few tokens, is what is counted at once."""
    folder = shards(tmp_path / "shards", letters, TEXTS * 5)
    once = build_lexicon(CountedLexicon(sizes=(9, 9), at_least=2), [folder], letters)
    monkeypatch.setattr("bothways.data.lexicon_building._TOGETHER", 11)
    monkeypatch.setattr("bothways.data.shards._TOGETHER", 9)
    told: list[int] = []
    again = build_lexicon(CountedLexicon(sizes=(9, 9), at_least=2), [folder], letters, told.append)
    assert entries(once) == entries(again)
    assert sum(told) == 2 * 8 * 80  # both lengths, eight passes, 80 tokens


def test_no_special_token_is_of_an_n_gram(letters: Tokenizer, tmp_path: Path) -> None:
    found = entries(built(tmp_path / "shards", letters, ["a ! b ! a ! b ! a b", "a b", "c d"]))  # ! is unknown
    assert set(found) == {(A, B), (C, D)}


def test_a_file_is_what_was_saved_and_knows_its_tokenizer(letters: Tokenizer, tmp_path: Path) -> None:
    made = built(tmp_path / "shards", letters)
    path = tmp_path / "lexicon.safetensors"
    made.save(path)
    read = Lexicon.load(path, letters)
    assert entries(read) == entries(made)
    assert (read.tokenizer, read.vocab_size, read.sizes) == (letters.fingerprint, letters.vocab_size, made.sizes)
    with pytest.raises(InputError, match="another tokenizer"):
        Lexicon.load(path, train_tokenizer(WordPiece(vocab_size=40), ["a b c"]))


def test_what_is_no_lexicon_is_refused(letters: Tokenizer, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    with pytest.raises(InputError, match=r"none\.safetensors: no such lexicon"):
        Lexicon.load(tmp_path / "none.safetensors", letters)
    save_file({"a": np.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="is no lexicon"):
        Lexicon.load(tmp_path / "a.safetensors", letters)
    (tmp_path / "b.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="cannot be read as a lexicon"):
        Lexicon.load(tmp_path / "b.safetensors", letters)
    with pytest.raises(InputError, match="no n-gram of the text occurs 9 times"):
        built(tmp_path / "shards", letters, at_least=9)
    with pytest.raises(InputError, match="too many n-grams of 14"):
        built(tmp_path / "others", letters, sizes=(1,) * 13)


# -- maximum matching --------------------------------------------------------------------------------


def lexicon(*grams: tuple[int, ...], vocab_size: int = 31) -> Lexicon:
    of_lengths = [[one for one in grams if len(one) == length] for length in (2, 3)]
    arrays = tuple(np.array(some, np.int32).reshape(-1, length) for length, some in enumerate(of_lengths, start=2))
    return Lexicon(arrays, tuple(np.zeros(len(one)) for one in arrays), vocab_size, "")


def units(found: Lexicon, ids: Sequence[int], lengths: Sequence[int] | None = None) -> list[tuple[int, int, int]]:
    made = found.units(np.array(ids, np.int32), np.array([len(ids)] if lengths is None else lengths, np.int64))
    return list(zip(made.firsts.tolist(), made.sizes.tolist(), made.numbers.tolist(), strict=True))


def test_the_longest_entry_is_taken() -> None:
    """Reference check 15.(3), from the left: what an n-gram has taken begins no other."""
    found = lexicon((A, B), (B, C), (A, B, C))
    assert units(found, [A, B, C, D]) == [(0, 3, 2), (3, 1, -1)]
    assert units(found, [A, B, D]) == [(0, 2, 0), (2, 1, -1)]
    assert units(found, [A, A, B, B, C]) == [(0, 1, -1), (1, 2, 0), (3, 2, 1)]
    assert units(lexicon((A, B), (B, C, D)), [A, B, C, D]) == [(0, 2, 0), (2, 1, -1), (3, 1, -1)]
    assert units(found, []) == []


def test_no_n_gram_lies_in_two_sequences() -> None:
    found = lexicon((A, B), (A, B, C))
    assert units(found, [A, B, C], [1, 0, 2]) == [(0, 1, -1), (1, 1, -1), (2, 1, -1)]
    assert units(found, [A, B, C], [2, 1]) == [(0, 2, 0), (2, 1, -1)]


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=4),
    st.sets(st.lists(st.integers(0, 3), min_size=2, max_size=3).map(tuple)),
)  # type: ignore[arg-type]
def test_matching_is_what_a_loop_finds(texts: list[list[int]], grams: set[tuple[int, ...]]) -> None:
    ordered = sorted(grams, key=lambda one: (len(one), one))
    expected, offset = [], 0
    for text in texts:
        place = 0
        while place < len(text):
            size = next((n for n in (3, 2) if place + n <= len(text) and tuple(text[place : place + n]) in grams), 1)
            number = ordered.index(tuple(text[place : place + size])) if size > 1 else -1
            expected.append((offset + place, size, number))
            place += size
        offset += len(text)
    ids = [i for text in texts for i in text]
    assert units(lexicon(*ordered, vocab_size=4), ids, [len(text) for text in texts]) == expected


def test_an_unknown_lexicon_has_distinct_entries() -> None:
    made = Lexicon.unknown(12, (30, 200), specials=5)
    assert made.sizes == (30, 200)
    assert len(entries(made)) == 230
    assert {i for gram in entries(made) for i in gram} == set(range(5, 12))
    assert Lexicon.unknown(7, (100,), specials=5).sizes == (4,)
