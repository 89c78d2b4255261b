"""Samples of whole sentences: FULL-SENTENCES and DOC-SENTENCES (pretraining.md §2, check 4)."""

from __future__ import annotations

import gzip
import json
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from bothways.data.segments import Sentences
from bothways.data.sentence_blocks import SentenceBlocks, WholeSentences, gather
from bothways.data.shard_writer import write_shards
from bothways.data.shards import Shards
from bothways.data.source import Document
from bothways.data.tokenizer import Tokenizer, bert_template
from bothways.data.tokenizer_training import ByteLevelBpe, train_tokenizer
from bothways.errors import InputError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CLS, SEP = 2, 3
# Sentences of 3, 2 and 4 tokens; of 2; of 7, which is longer than a sample of 6 beside [CLS] and [SEP], and 2
TEXTS = ("a b . c . d e f .", "g .", "h i j k l m . n .")


def tokenizer(ending: bool = True) -> Tokenizer:
    """Words of one letter and the full stop, 5, split at spaces."""
    vocab = {word: i for i, word in enumerate([*SPECIAL, ".", *"abcdefghijklmnopqrstuvwxyz"])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(list(SPECIAL))
    if ending:
        backend.post_processor = bert_template(CLS, SEP)
    return Tokenizer(backend)


def opened(folder: Path, texts: tuple[str, ...], words: Tokenizer, length: int, blocks: WholeSentences) -> SentenceBlocks:
    write_shards((Document(text, f"{i}") for i, text in enumerate(texts)), words, folder)
    return SentenceBlocks(Shards(folder, words), words, length, np.arange(len(texts)), blocks)


def told(data: SentenceBlocks, words: Tokenizer) -> list[str]:
    """The samples as words, without the tokens around them; a separator is a bar."""
    samples = [data[number].sequences[0] for number in range(len(data))]
    assert [len(one) for one in samples] == data.lengths.tolist()
    return [words.decode(one[1:-1], skip_special_tokens=False).replace("[SEP]", "|") for one in samples]


def test_blocks_by_hand(tmp_path: Path) -> None:
    """As many sentences as fit, those of the next document behind a separator; a long sentence in pieces, and more behind it."""
    words = tokenizer()
    data = opened(tmp_path / "a", TEXTS, words, 8, WholeSentences())
    # the separator is counted: behind "d e f ." there is room for one more token, not for "| g ."
    assert told(data, words) == ["a b . c .", "d e f .", "g .", "h i j k l m", ". n ."]
    longer = opened(tmp_path / "b", TEXTS, words, 9, WholeSentences())
    assert told(longer, words) == ["a b . c .", "d e f . | g .", "h i j k l m .", "n ."]


def test_blocks_of_one_document_by_hand(tmp_path: Path) -> None:
    data = opened(tmp_path, ("a . b .", "c .", "d ."), words := tokenizer(), 30, WholeSentences(across=False))
    assert told(data, words) == ["a . b .", "c .", "d ."]
    both = opened(tmp_path / "both", ("a . b .", "c .", "d ."), words, 30, WholeSentences())
    assert told(both, words) == ["a . b . | c . | d ."]


@given(
    documents=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=6),
    separator=st.sampled_from([None, 1, 2]),
)
def test_each_block_is_as_long_as_sentences_fit(documents: list[list[int]], separator: int | None) -> None:
    """Beside a plain loop over sentences."""
    room = 9
    expected: list[list[tuple[int, int]]] = []
    used = room + 1
    for number, document in enumerate(documents):
        for place, size in enumerate(document):
            extra = (separator or 0) if place == 0 else 0
            if used + extra + size > room or (separator is None and place == 0):
                expected.append([])
                used, extra = 0, 0
            expected[-1].append((number, place))
            used += extra + size
    ends = [np.cumsum(document) for document in documents]
    found = list(gather(ends, room, separator))
    assert len(found) == len(expected)
    for (first, start, last, end, tokens), block in zip(found, expected, strict=True):
        (head, begin), (tail, final) = block[0], block[-1]
        assert (first, start, last, end) == (head, sum(documents[head][:begin]), tail, sum(documents[tail][: final + 1]))
        sizes = sum(documents[number][place] for number, place in block)
        assert tokens == sizes + (separator or 0) * (len({number for number, _ in block}) - 1) <= room


def test_documents_of_ordinary_sentences_fill_their_samples(tmp_path: Path) -> None:
    """At 512 tokens over 95 % full, as far as real text is; one document a sample is not."""
    draw = np.random.default_rng(0)
    documents = [draw.integers(5, 41, draw.integers(1, 60)) for _ in range(200)]
    texts = tuple(" ".join("a " * (size - 1) + "." for size in sentences) for sentences in documents)
    across, alone = (
        opened(tmp_path / f"{blocks.across}", texts, tokenizer(), 512, blocks).lengths
        for blocks in (WholeSentences(), WholeSentences(across=False))
    )
    assert len(across) > 200
    assert across.sum() >= 0.95 * 512 * len(across)
    assert alone.sum() < 0.95 * 512 * len(alone)


def test_real_text_is_whole_and_fills_its_samples(shared: Path, tmp_path: Path) -> None:
    """At 512 tokens over 95 % full; a sample ends where a sentence does, but within a longer one; nothing is lost."""
    with gzip.open(shared / "data/text/novels-eng.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = tuple(json.loads(line)["text"][:200_000] for line in islice(file, 4))
    words = train_tokenizer(ByteLevelBpe(vocab_size=2000), iter(texts), 512)
    data = opened(tmp_path, texts, words, 512, WholeSentences())
    samples = [data[number].sequences[0] for number in range(len(data))]
    assert len(samples) > 300
    assert data.lengths.sum() >= 0.95 * 512 * len(data)
    shards, rule = Shards(tmp_path, words), Sentences.of(words)
    (end,) = words.after
    read = np.concatenate([one[1:-1] for one in samples])
    documents = [shards.read(number, 0, int(length)) for number, length in enumerate(shards.lengths)]
    assert np.array_equal(read[read != end], np.concatenate(documents))
    ends = np.concatenate([rule.ends(one) + before for one, before in zip(documents, _starts(documents), strict=True)])
    longest = {int(last): int(last - first) for first, last in pairwise([0, *ends.tolist()])}
    places = np.cumsum([int((one[1:-1] != end).sum()) for one in samples])
    within = [place for place in places.tolist() if place not in longest]
    assert all(longest[int(ends[np.searchsorted(ends, place)])] > 510 for place in within)
    assert len(within) < 0.02 * len(samples)


def _starts(documents: list[np.ndarray]) -> list[int]:
    return np.cumsum([0, *(len(one) for one in documents[:-1])]).tolist()


def test_what_cannot_be(tmp_path: Path, letters: Tokenizer) -> None:
    with pytest.raises(InputError, match="max_length=2: no room beside 2 special tokens"):
        opened(tmp_path / "a", TEXTS, tokenizer(), 2, WholeSentences())
    with pytest.raises(InputError, match=r"blocks\.across: no token of this tokenizer ends a text"):
        opened(tmp_path / "b", TEXTS, tokenizer(ending=False), 8, WholeSentences())
    with pytest.raises(InputError, match=r"blocks\.sentences: no token of this tokenizer ends a sentence by signs"):
        opened(tmp_path / "c", TEXTS, letters, 8, WholeSentences())
    with pytest.raises(InputError, match="no text in the 0 documents chosen"):
        SentenceBlocks(Shards(tmp_path / "a", tokenizer()), tokenizer(), 8, np.arange(0), WholeSentences())
    assert len(opened(tmp_path / "d", TEXTS, tokenizer(ending=False), 8, WholeSentences(across=False)))
