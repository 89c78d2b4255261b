"""BM25: scores worked out by hand, and the traps of the library beneath it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bothways.errors import InputError
from bothways.retrieval.lexical import Lexical
from bothways.retrieval.words import words


def test_scores_by_hand() -> None:
    """3 passages of mean length 5/3; two hold the word. Term frequency over itself plus k1 (1 - b + b length/mean)."""
    found = Lexical.build(["a b", "a a", "c"]).search("a", 2)
    rarity = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    damping = 1.5 * (0.25 + 0.75 * 2 / (5 / 3))
    assert [row for row, _ in found] == [1, 0]
    assert [score for _, score in found] == pytest.approx([rarity * 2 / (2 + damping), rarity / (1 + damping)], rel=1e-6)


def test_rare_words_weigh_more_and_long_passages_less() -> None:
    lexical = Lexical.build(["the cat", "the dog", "the the bird and one or two more words", "bird"])
    assert [row for row, _ in lexical.search("the dog", 9)] == [1, 0, 2]
    assert [row for row, _ in lexical.search("bird", 9)] == [3, 2]


def test_more_asked_than_there_are_and_no_padding() -> None:
    lexical = Lexical.build(["one", "two", "three"])
    assert [row for row, _ in lexical.search("two", 100)] == [1]
    assert lexical.search("four", 100) == []
    assert lexical.search("...", 100) == []


def test_ties_go_to_the_lower_number() -> None:
    assert [row for row, _ in Lexical.build(["x y", "same", "same", "same"]).search("same", 2)] == [1, 2]


def test_single_letters_and_common_words_count() -> None:
    lexical = Lexical.build(["vitamin c", "vitamin d", "to be or not to be"])
    assert lexical.search("c", 1)[0][0] == 0
    assert lexical.search("to be", 1)[0][0] == 2


def test_passages_without_any_word(tmp_path: Path) -> None:
    lexical = Lexical.build(["", "...", "\u2013"])
    lexical.save(tmp_path)
    for one in (lexical, Lexical.load(tmp_path)):
        assert one.passages == 3
        assert one.search("anything", 5) == []
        assert one.search("", 5) == []


def test_nothing_to_index() -> None:
    with pytest.raises(InputError, match="no passages"):
        Lexical.build([])


def test_saved_and_loaded(tmp_path: Path) -> None:
    lexical = Lexical.build(["größe und maß", "漢字", "plain words here"])
    lexical.save(tmp_path)
    for query in ("Maß", "字", "words plain", "absent"):
        assert Lexical.load(tmp_path).search(query, 3) == lexical.search(query, 3)


def test_damaged_files(tmp_path: Path) -> None:
    Lexical.build(["a"]).save(tmp_path)
    (tmp_path / "data.csc.index.npy").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="BM25 index cannot be read"):
        Lexical.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World! x_y = 2.5", ["hello", "world", "x", "y", "2", "5"]),
        ("Straße ÉTÉ", ["straße", "été"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs are marks: they stay in their word
        ("e\u0301te", ["éte"]),  # letter and mark, or one character: the same word
        ("\ufb01ne \uff12", ["fine", "2"]),
        ("東京へ go", ["東", "京", "へ", "go"]),
        ("don't", ["don", "t"]),
        (" \n", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
