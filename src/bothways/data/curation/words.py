"""Text as words that any language and any spelling of them agree on, and as 64-bit hashes of those.

A word is a run of letters and digits. Where a script does without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese), every
character is one. Case, accents and punctuation do not tell words apart, nor do the ways Unicode has to write the same letter.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt64

# Marks that belong to the letter before them: they are no letters to Python, and would end the word.
_MARKS = (
    r"\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06ed\u0900-\u0963\u0966-\u0dff"
)
_ALONE = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"[{_ALONE}]|(?:[^\W_{_ALONE}]+|[{_MARKS}]+)+")

# The multiplier of n-grams: odd, so that it has an inverse modulo 2^64.
_FACTOR = 0x9E3779B97F4A7C15
_INVERSE = pow(_FACTOR, -1, 1 << 64)


def words(text: str) -> list[str]:
    """The words of a text as they are written."""
    return WORD.findall(text)


def normal(word: str) -> str:
    """What all spellings of a word have in common: no case, no accents, compatibility forms resolved."""
    if word.isascii():
        return word.lower()
    parts = unicodedata.normalize("NFKD", word.casefold())
    return "".join(letter for letter in parts if not unicodedata.combining(letter)) or word


def hashes(found: Sequence[str]) -> UInt64[np.ndarray, " words"]:
    """A hash of each word's normal form, the same in every process and on every machine."""
    table = {word: _hash(normal(word)) for word in set(found)}
    return np.fromiter((table[word] for word in found), np.uint64, len(found))


def ngrams(items: UInt64[np.ndarray, " items"], size: int) -> UInt64[np.ndarray, " ngrams"]:
    """A hash of every `size` items that follow one another: max(items - size + 1, 0) of them.

    A polynomial modulo 2^64 from running sums, so that the work does not grow with `size`.
    """
    count = len(items) - size + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(items * _powers(_FACTOR, len(items)), dtype=np.uint64)])
    grams = (sums[size:] - sums[:-size]) * _powers(_INVERSE, count)
    return grams ^ (grams >> np.uint64(29))


def _powers(base: int, count: int) -> UInt64[np.ndarray, " count"]:
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
