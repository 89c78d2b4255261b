"""Where sentences end: by hand, in each kind of vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from bothways.data.segments import Sentences
from bothways.data.tokenizer import Tokenizer, bert_template
from bothways.data.tokenizer_training import ByteLevelBpe, Unigram, WordPiece, train_tokenizer

TEXT = (
    'The ship left. "Where to?" asked 3 men! (It cost 3.50 pounds.) Then... the end?! He said no.'
    "\nA new line begins 12. 13 men came"
)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    ids = tokenizer.encode([text], specials=False)[0]
    ends = Sentences.of(tokenizer).ends(ids).tolist()
    return [tokenizer.decode(ids[start:end]).strip() for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize(
    "training",
    [WordPiece(vocab_size=300), ByteLevelBpe(vocab_size=400), Unigram(vocab_size=120)],
    ids=lambda one: one.type,
)
def test_sentences_of_every_kind_of_vocabulary(training: WordPiece | ByteLevelBpe | Unigram) -> None:
    tokenizer = train_tokenizer(training, [TEXT] * 3, 128)
    found = [one.replace(" ", "").lower() for one in pieces(tokenizer, TEXT)]
    # nor do quotes say whether they open or close
    quoted = ['theshipleft."', 'whereto?"'] if training.type == "wordpiece" else ["theshipleft.", '"whereto?"']
    expected = [*quoted, "asked3men!", "(itcost3.50pounds.)", "then...", "theend?!", "hesaidno."]
    assert found[: len(expected)] == expected
    rest = ["anewlinebegins12.", "13mencame"]
    # digits of a WordPiece text do not say whether a space was between them
    assert found[len(expected) :] == (["".join(rest)] if training.type == "wordpiece" else rest)


def test_line_breaks_end_sentences() -> None:
    tokenizer = train_tokenizer(ByteLevelBpe(vocab_size=400), [TEXT], 128)
    assert pieces(tokenizer, "one line\nanother\n\nthe last") == ["one line", "another", "the last"]


def _words(*words: str) -> Tokenizer:
    vocab = {word: i for i, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words))}
    backend = Backend(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    backend.post_processor = bert_template(2, 3)
    return Tokenizer(backend)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("a . b", [2, 3]),
        ("a b", [2]),
        (". .", [2]),
        ("a . ) ) b", [3, 5]),  # a second bracket begins the next
        ("1 . 1 .", [4]),
        ("1 . b", [2, 3]),
        ("a", [1]),
        ("", []),
    ],
)
def test_ends_by_hand(text: str, ends: list[int]) -> None:
    tokenizer = _words("a", "b", ".", ")", "1")
    ids = np.array([tokenizer.backend.token_to_id(word) for word in text.split()], dtype=np.int64)
    assert Sentences.of(tokenizer).ends(ids).tolist() == ends


def test_lines_alone() -> None:
    """Of code, a line is a sentence; its full stops end none."""
    code = " self . name = '. Why? ⏎'\n return self . name [ 0 ]\n"
    tokenizer = train_tokenizer(ByteLevelBpe(vocab_size=300), [code])
    ids = tokenizer.encode([code], specials=False)[0]
    ends = Sentences.of(tokenizer, "lines").ends(ids).tolist()
    assert [tokenizer.decode(ids[start:end]) for start, end in zip([0, *ends], ends, strict=False)] == code.splitlines(
        keepends=True
    )
    assert len(Sentences.of(tokenizer).ends(ids)) > 2
