"""What pieces stand for in each kind of vocabulary, and how another spells it."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models

from bothways.data.pieces import Pieces, Spelling
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import ByteLevelBpe, Unigram, WordPiece, train_tokenizer
from bothways.errors import InputError

TEXT = [
    "The small encoder reads both ways, and the small reader encodes.",
    "Readers read; encoders encode! Ways are small, and the way is both.",
    "Größe, Straße, naïve café — 日本語 text.",
] * 4
KINDS = {
    "wordpiece": WordPiece(vocab_size=180),
    "cased": WordPiece(vocab_size=180, lowercase=False),
    "bpe": ByteLevelBpe(vocab_size=320),
    "unigram": Unigram(vocab_size=100),
}


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {name: train_tokenizer(training, TEXT) for name, training in KINDS.items()}


@pytest.mark.parametrize(("name", "marks"), [("wordpiece", "continuation"), ("bpe", "bytes"), ("unigram", "metaspace")])
def test_spellings(tokenizers: dict[str, Tokenizer], name: str, marks: str) -> None:
    pieces = Pieces(tokenizers[name])
    assert pieces.marks == marks
    inner, first = {"wordpiece": ("##er", "small"), "bpe": ("er", "Ġsmall"), "unigram": ("er", "▁small")}[name]
    assert pieces.spelling(first) == Spelling("small", True)
    assert pieces.spelling(inner) == Spelling("er", False)


def test_parts_of_characters_stand_for_nothing(tokenizers: dict[str, Tokenizer]) -> None:
    assert Pieces(tokenizers["bpe"]).spelling("Ã") is None  # the first byte of ä
    assert Pieces(tokenizers["bpe"]).spelling("Ã¶") == Spelling("ö", False)
    assert Pieces(tokenizers["unigram"]).spelling("<0xC3>") is None


@pytest.mark.parametrize("name", KINDS)
def test_a_vocabulary_spells_its_own_text_as_it_cuts_it(tokenizers: dict[str, Tokenizer], name: str) -> None:
    """Pieces in running text are what each of them spells: so the cut within a word is the tokenizer's own."""
    tokenizer = tokenizers[name]
    pieces, cut = Pieces(tokenizer), tokenizer.encode(["small readers encode the Straße"], specials=False)[0].tolist()
    names = [tokenizer.backend.id_to_token(i) for i in cut]
    words = ["small", "readers", "encode", "the", "Straße"]
    assert [i for word in words for i in pieces.spell(Spelling(word, word != "small" or name != "bpe"))] == cut
    for piece, i in zip(names, cut, strict=True):
        spelling = pieces.spelling(piece)
        if spelling is None:
            assert piece in ("raÃ", "Łe")  # the halves of ß
        else:
            assert pieces.spell(spelling) == [i]


@pytest.mark.parametrize("name", ["wordpiece", "cased", "unigram"])
def test_the_rest_of_a_word_is_no_word(tokenizers: dict[str, Tokenizer], name: str) -> None:
    """What continues a word is spelt with inner pieces, the same letters at its beginning are not."""
    tokenizer = tokenizers[name]
    pieces = Pieces(tokenizer)
    inner, first = pieces.spell(Spelling("eads", False)), pieces.spell(Spelling("eads", True))
    assert inner != first
    marks = [tokenizer.backend.id_to_token(i).startswith(("##", "▁")) for i in (inner[0], first[0])]
    assert marks == ([False, True] if name == "unigram" else [True, False])
    text = "".join(tokenizer.backend.id_to_token(i).replace("##", "").replace("▁", "") for i in inner)
    assert text == "eads"


def test_what_is_normalised_away_and_what_is_unknown(tokenizers: dict[str, Tokenizer]) -> None:
    lower = Pieces(tokenizers["wordpiece"])
    assert lower.spell(Spelling("SMALL", True)) == lower.spell(Spelling("small", True))
    assert lower.spell(Spelling("☃", True)) == []
    assert lower.spell(Spelling("!", False)) == [lower.ids["!"]]
    assert lower.spell(Spelling("small☃", True)) == []  # one word, of which a part is unknown
    assert Pieces(tokenizers["bpe"]).spell(Spelling("☃", True))  # bytes know everything


def test_added_tokens_are_themselves(tokenizers: dict[str, Tokenizer]) -> None:
    copy = Backend.from_str(tokenizers["bpe"].backend.to_str())
    copy.add_tokens(["covid test"])
    pieces = Pieces(Tokenizer(copy))
    assert pieces.spelling("covid test") == Spelling("covid test", True)
    assert pieces.spelling("<mask>") == Spelling("<mask>", True)


def test_ends_of_words_are_refused() -> None:
    backend = Backend(models.BPE({"a": 0, "a</w>": 1}, [], end_of_word_suffix="</w>"))
    with pytest.raises(InputError, match="marks the ends of words"):
        Pieces(Tokenizer(backend))
