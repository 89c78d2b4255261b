"""Which pieces begin a word, in each kind of vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import ByteLevelBpe, Unigram, WordPiece, train_tokenizer
from bothways.data.vocabulary import Vocabulary, WordTable, word_table

TEXT = [
    "The small encoder reads both ways, and the small reader encodes.",
    "Readers read; encoders encode! Ways are small, and the way is both.",
    "Größe, Straße, naïve café (1234) the 日本語 text.",
] * 4
KINDS = {
    "wordpiece": WordPiece(vocab_size=80),
    "cased": WordPiece(vocab_size=85, lowercase=False),
    "bpe": ByteLevelBpe(vocab_size=300),
    "unigram": Unigram(vocab_size=70),
}


@pytest.fixture(scope="module")
def trained() -> dict[str, Tokenizer]:
    found = {name: train_tokenizer(training, TEXT) for name, training in KINDS.items()}
    metaspace = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    metaspace.pre_tokenizer = pre_tokenizers.Metaspace()
    metaspace.decoder = decoders.Metaspace()
    # a limit of merges within the vocabulary's letters
    metaspace.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>"], show_progress=False))
    return {**found, "metaspace": Tokenizer(metaspace)}


def words(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words of a text by the table, as their pieces joined."""
    (ids,) = tokenizer.encode([text], specials=False)
    table = word_table(tokenizer, tokenizer.vocab_size)
    assert table is not None
    found: list[str] = []
    for i, joined in zip(ids.tolist(), table.joined(ids).tolist(), strict=True):
        piece = tokenizer.backend.id_to_token(i)
        bare = piece.removeprefix("##").removeprefix("▁").removeprefix("Ġ")
        found = [*found[:-1], found[-1] + bare] if joined else [*found, bare]
    return found


@pytest.mark.parametrize("name", [*KINDS, "metaspace"])
def test_words_of_a_text(trained: dict[str, Tokenizer], name: str) -> None:
    said = "the small readers, both ways; encoders read!"
    pieces = trained[name].encode([said], specials=False)[0]
    expected = ["the", "small", "readers", ",", "both", "ways", ";", "encoders", "read", "!"]
    assert len(pieces) > len(expected)  # there is something to join
    assert words(trained[name], said) == expected


@pytest.mark.parametrize("name", ["wordpiece", "cased"])
def test_word_piece_words_are_those_of_the_tokenizer(trained: dict[str, Tokenizer], name: str) -> None:
    tokenizer = trained[name]
    table = word_table(tokenizer, tokenizer.vocab_size)
    assert table is not None
    for ids, numbers in tokenizer.encode_words(TEXT[:3]):
        np.testing.assert_array_equal(table.joined(ids), np.diff(numbers, prepend=-100) == 0)


def test_byte_level_parts_of_characters_and_scripts_without_spaces(trained: dict[str, Tokenizer]) -> None:
    assert words(trained["bpe"], "the Größe")[0] == "the"
    assert len(words(trained["bpe"], "the Größe")) == 2  # though its ö and ß may be cut in two
    assert words(trained["unigram"], "the 日本語 text")[-1] == "text"
    table = word_table(trained["unigram"], 100)
    assert table is not None
    for character in "日本語":
        i = trained["unigram"].backend.token_to_id(character)
        assert i is None or (not table.continues[i] and table.closes[i])


def test_ends_of_words_may_be_marked() -> None:
    vocab = {"l": 0, "o": 1, "w": 2, "lo": 3, "w</w>": 4, "l</w>": 5, "o</w>": 6, "low</w>": 7}
    backend = tokenizers.Tokenizer(models.BPE(vocab, [("l", "o")], end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    table = word_table(Tokenizer(backend), 10)
    assert table is not None
    assert table.joined(np.array([3, 4, 3, 5, 7, 0, 6])).tolist() == [False, True, False, True, False, False, True]


def test_where_words_are_whole_and_where_nothing_is_marked(letters: Tokenizer) -> None:
    table = word_table(letters, 40)
    assert table is not None
    assert not table.joined(np.array([2, 5, 6, 7, 3])).any()
    backend = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1, "[MASK]": 2}, []))
    backend.add_special_tokens(["[MASK]"])
    assert word_table(Tokenizer(backend), 3) is None
    assert Vocabulary.of(Tokenizer(backend)).words is None


@pytest.mark.parametrize("name", KINDS)
def test_special_tokens_are_words_of_their_own(trained: dict[str, Tokenizer], name: str) -> None:
    tokenizer = trained[name]
    vocabulary = Vocabulary.of(tokenizer, size=512)
    table = vocabulary.words
    assert table is not None
    assert len(table.continues) == 512
    inner = np.flatnonzero(table.continues)[0]
    for special in tokenizer.special_ids:
        assert table.joined(np.array([inner, inner, special, inner])).tolist() == [False, not table.closes[inner], False, False]


def test_single_tokens_as_words() -> None:
    assert not WordTable.single(5).joined(np.array([1, 2, 3])).any()
