"""Words as all languages and spellings have them, and hashes that anybody can compute again."""

from __future__ import annotations

import hashlib
import unicodedata

import numpy as np
import pytest

from bothways.data.curation.words import hashes, ngrams, normal, words


def test_words() -> None:
    assert words("The 2nd, don't_stop - naïve café!") == ["The", "2nd", "don", "t", "stop", "naïve", "café"]
    assert words("東京に行く。 สวัสดี") == [*"東京に行く", *"สวัสดี"]
    assert words("हिन्दी में") == ["हिन्दी", "में"]
    assert words("كِتَاب جديد") == ["كِتَاب", "جديد"]
    assert words("한국어 단어") == ["한국어", "단어"]


@pytest.mark.parametrize(
    ("first", "second"),
    [("STRASSE", "Straße"), ("Café", "cafe"), ("ﬁne", "fine"), ("كِتَاب", "كتاب"), ("ΣΊΣΥΦΟΣ", "σισυφος")],
)
def test_spellings_that_are_one(first: str, second: str) -> None:
    assert normal(first) == normal(second)
    assert (hashes([first]) == hashes([second])).all()


@pytest.mark.parametrize("text", ["Ein Café für naïve Größen", "Ngày đẹp trời ở Hà Nội"])
def test_composed_and_decomposed_letters_are_the_same(text: str) -> None:
    other = unicodedata.normalize("NFD", text)
    assert other != text
    assert (hashes(words(other)) == hashes(words(text))).all()


def test_hashes_are_those_of_blake2b() -> None:
    expected = int.from_bytes(hashlib.blake2b(b"tide", digest_size=8).digest(), "little")
    assert hashes(["Tide", "tide"]).tolist() == [expected, expected]


def test_ngrams_are_functions_of_their_items_alone() -> None:
    items = np.random.default_rng(0).integers(0, 1 << 63, 50).astype(np.uint64)
    for size in (1, 2, 13, 50):
        grams = ngrams(items, size)
        assert len(grams) == 51 - size
        for at in range(0, len(grams), 7):
            assert ngrams(items[at : at + size], size)[0] == grams[at]  # wherever they stand
    assert len(ngrams(items, 51)) == 0
    assert ngrams(items[[0, 1]], 2) != ngrams(items[[1, 0]], 2)  # their order counts
