"""What masking knows of a vocabulary: special ids, frequencies, and which pieces go on with a word, as tables.

So words are found in packed ids without their text.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int
from tokenizers import decoders

from bothways.data.lexicon import Lexicon
from bothways.data.pieces import SPACE, marks_of
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError

_HANGUL = range(0xAC00, 0xD7B0)


@dataclass(frozen=True, eq=False)
class WordTable:
    """What each piece says of words; special tokens are words of their own.

    Attributes:
        continues: bool [vocabulary], whether it goes on with the word of the piece before it.
        closes: bool [vocabulary], whether its word ends with it, whatever follows.
    """

    continues: Bool[np.ndarray, " vocabulary"]
    closes: Bool[np.ndarray, " vocabulary"]

    @classmethod
    def single(cls, size: int) -> WordTable:
        """Every piece is a word."""
        return cls(np.zeros(size, dtype=bool), np.ones(size, dtype=bool))

    def joined(self, ids: Int[np.ndarray, " tokens"]) -> Bool[np.ndarray, " tokens"]:
        """Whether each token is of the same word as the one before it; the first is not."""
        joined = self.continues[ids]
        joined[1:] &= ~self.closes[ids[:-1]]
        joined[:1] = False
        return joined


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What masking needs to know of the token ids.

    Attributes:
        size: their number (of the embedding, if larger).
        words: where words begin; None where the tokenizer does not tell.
        counts: int [size], how often each id occurs in the text; None where nobody has counted.
        lexicon: its n-grams; None where they are not asked for.
    """

    size: int
    mask_id: int
    special_ids: frozenset[int]
    words: WordTable | None = None
    counts: Int[np.ndarray, " vocabulary"] | None = None
    lexicon: Lexicon | None = None

    @classmethod
    def of(cls, tokenizer: Tokenizer, size: int | None = None) -> Vocabulary:
        """Raises InputError where the tokenizer has no mask token."""
        if tokenizer.mask_id is None:
            raise InputError("the tokenizer has no mask token ([MASK] or <mask>): masked language modelling needs one")
        size = tokenizer.vocab_size if size is None else size
        return cls(size, tokenizer.mask_id, tokenizer.special_ids, word_table(tokenizer, max(size, tokenizer.vocab_size)))

    @classmethod
    def unknown(cls, size: int, specials: int = 1) -> Vocabulary:
        """Of which nothing is known but its size: every token is a word, and as frequent as all others; the special ones come
        first, the mask token last of them.
        """
        return cls(size, specials - 1, frozenset(range(specials)), WordTable.single(size), np.ones(size, np.int64))

    @cached_property
    def is_special(self) -> Bool[np.ndarray, " vocabulary"]:
        table = np.zeros(self.size, dtype=bool)
        table[[i for i in self.special_ids if i < self.size]] = True
        return table

    @cached_property
    def ordinary(self) -> Int[np.ndarray, " ordinary"]:
        """The ids that are not special."""
        return np.flatnonzero(~self.is_special)

    @cached_property
    def log_counts(self) -> Float64[np.ndarray, " vocabulary"]:
        """Of ids that do not occur: as of one that occurs once."""
        assert self.counts is not None, "`check_masking` has been asked"
        return np.log(np.maximum(self.counts, 1))


def word_table(tokenizer: Tokenizer, size: int) -> WordTable | None:
    """The table of a tokenizer's vocabulary, with `size` rows at least as many as it has ids.

    Inner pieces may be marked (WordPiece's ##), or the space before a word may belong to it (byte-level and sentencepiece,
    BPE or Unigram), or the ends of words may be marked (</w>). Where the space is the mark, a piece without any letter or
    digit is a word of its own, and so is one of Chinese or Japanese, as WordPiece has them. None where nothing marks words.
    """
    tree = json.loads(tokenizer.backend.to_str())
    kind = _kind(tree)
    if kind is None:
        return None
    table = WordTable.single(size)
    added = set(tokenizer.backend.get_added_tokens_decoder()) | tokenizer.special_ids
    for piece, i in tokenizer.backend.get_vocab().items():
        if i not in added:
            table.continues[i], table.closes[i] = kind(piece)
    return table


def _kind(tree: dict[str, Any]) -> Callable[[str], tuple[bool, bool]] | None:
    """From a piece to whether it continues a word, and whether it closes one."""
    model = tree["model"]
    prefix: str = model.get("continuing_subword_prefix") or ""
    suffix: str = model.get("end_of_word_suffix") or ""
    if suffix:
        return lambda piece: (True, piece.endswith(suffix))
    if prefix:
        return lambda piece: (piece.startswith(prefix) and piece != prefix, False)
    match marks_of(tree, prefix):
        case "bytes":
            decoder = decoders.ByteLevel()
            return lambda piece: _spaced(piece, decoder.decode([piece]), SPACE["bytes"])
        case "metaspace":
            return lambda piece: _spaced(piece, piece.replace("▁", " "), SPACE["metaspace"])
        case _:
            return (lambda piece: (False, True)) if model["type"] == "WordLevel" else None


def _spaced(piece: str, text: str, mark: str) -> tuple[bool, bool]:
    if "\N{REPLACEMENT CHARACTER}" in text:  # a part of a character
        return not piece.startswith(mark), False
    if piece.startswith(mark) and not text.strip(" "):  # a space alone: the word comes next
        return False, False
    alone = all(_apart(character) for character in text.removeprefix(" "))
    return not (alone or piece.startswith(mark)), alone


def _apart(character: str) -> bool:
    """Whether a character is no part of a word of several: no letter or digit, or of a script that has no spaces."""
    category = unicodedata.category(character)
    unspaced = category == "Lo" and unicodedata.east_asian_width(character) == "W" and ord(character) not in _HANGUL
    return unspaced or category[0] not in "LNM"
