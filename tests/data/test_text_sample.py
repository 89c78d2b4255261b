"""A sample of a stream: bounded, repeatable, in order, and fair."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bothways.data.text_sample import sample_texts


@given(texts=st.lists(st.text(max_size=12), max_size=40), room=st.integers(0, 120), seed=st.integers(0, 3))
def test_it_fits_and_is_in_order(texts: list[str], room: int, seed: int) -> None:
    found = sample_texts(iter(texts), room, seed)
    assert found == sample_texts(iter(texts), room, seed)
    assert (found.read, found.read_characters) == (len(texts), sum(map(len, texts)))
    assert found.characters == sum(map(len, found.texts))
    assert found.characters <= room or len(found.texts) == 1
    rest = iter(texts)
    assert all(text in rest for text in found.texts), "a subsequence"
    assert found.whole == (sum(map(len, texts)) <= room or len(texts) <= 1)


def test_every_part_of_the_stream_is_in_it() -> None:
    """About as many from each tenth, whatever the seed: 200 of 2,000, so 20 and at most four deviations (17) beside that."""
    texts = [f"{number:010}" for number in range(2000)]
    for seed in range(5):
        kept = [int(text) for text in sample_texts(texts, 2000, seed).texts]
        assert len(kept) == 200
        assert abs(np.bincount(np.array(kept) // 200, minlength=10) - 20).max() < 18
    assert sample_texts(texts, 2000, 0).texts != sample_texts(texts, 2000, 1).texts


def test_it_says_what_it_is_of() -> None:
    told: list[tuple[int, int]] = []
    found = sample_texts(["abcd"] * 1000, 400, progress=lambda texts, characters: told.append((texts, characters)))
    assert str(found) == "a sample of 100 of 1,000 texts (400 characters, 10.0% of the characters)"
    assert told == [(512, 2048), (488, 1952)]
    assert str(sample_texts(["ab", "c"], 9)) == "all 2 texts (3 characters)"
