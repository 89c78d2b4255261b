"""Which tokens stand near which: counted by hand, in blocks, and of a part of much text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bothways.data.cooccurrence import Cooccurrence, Pairs, count_pairs
from bothways.data.shard_writer import write_shards
from bothways.data.shards import Shards
from bothways.data.source import Document
from bothways.data.tokenizer import Tokenizer

A, B, C, D = 5, 6, 7, 8  # of `letters`


def counted(folder: Path, tokenizer: Tokenizer, texts: Sequence[str], **settings: object) -> Pairs:
    write_shards((Document(text, str(i)) for i, text in enumerate(texts)), tokenizer, folder)
    shards = Shards(folder, tokenizer)
    text = [(shards, np.arange(len(texts)))]
    return count_pairs(Cooccurrence(**settings), text, tokenizer.vocab_size, tokenizer.special_ids)  # type: ignore[arg-type]


def weights(pairs: Pairs) -> dict[tuple[int, int], float]:
    keys = zip(pairs.keys // pairs.size, pairs.keys % pairs.size, pairs.weights, strict=True)
    return {(int(first), int(second)): float(weight) for first, second, weight in keys}


def test_pairs_by_hand(letters: Tokenizer, tmp_path: Path) -> None:
    """a b c a | d d: two apart count a half, and nothing goes from one document into the next."""
    found = weights(counted(tmp_path / "shards", letters, ("a b c a", "d d"), window=2))
    assert found == {(A, B): 1, (B, C): 1, (C, A): 1, (A, C): 0.5, (B, A): 0.5, (D, D): 1}


def test_special_tokens_have_no_pairs(letters: Tokenizer, tmp_path: Path) -> None:
    """An unknown letter stands between two others: they are two apart, and it is near none."""
    assert weights(counted(tmp_path / "shards", letters, ("a ! b",), window=2)) == {(A, B): 0.5}


def test_pairs_are_the_same_in_blocks(letters: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(random.Random(i).choices("abcd", k=9)) for i in range(20)]
    whole = counted(tmp_path / "whole", letters, texts)
    monkeypatch.setattr("bothways.data.shards._TOGETHER", 30)
    parts = counted(tmp_path / "parts", letters, texts)
    assert weights(parts) == pytest.approx(weights(whole))
    assert parts.tokens == whole.tokens == 180


def test_of_much_text_a_part_is_counted(letters: Tokenizer, tmp_path: Path) -> None:
    """Every fourth document, for a quarter of the tokens."""
    texts = ["a b" if i % 4 == 0 else "c d" for i in range(16)]
    pairs = counted(tmp_path / "shards", letters, texts, tokens=8)
    assert (weights(pairs), pairs.tokens) == ({(A, B): 4}, 8)
