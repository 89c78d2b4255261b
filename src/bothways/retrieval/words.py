"""Words for lexical search, in any script.

Text is normalised (NFKC) and lowercased; letters, marks and digits make up words, everything else
separates them. Nothing is stemmed and no word is too common or too short. Chinese characters and kana,
which are written without spaces, are words of their own; Thai, Lao and Khmer are not cut further than
their spaces.
"""

from __future__ import annotations

import unicodedata

_UNSPACED = ("CJK UNIFIED", "CJK COMPATIBILITY", "HIRAGANA", "KATAKANA")


class _Characters(dict[int, str]):
    """What each character becomes before a text is split at white space; filled as characters turn up."""

    def __missing__(self, point: int) -> str:
        char = chr(point)
        if unicodedata.category(char)[0] not in "LMN":
            self[point] = " "
        elif unicodedata.name(char, "").startswith(_UNSPACED):
            self[point] = f" {char} "
        else:
            self[point] = char
        return self[point]


_CHARACTERS = _Characters()


def words(text: str) -> list[str]:
    """The words of a text in order, repeats included."""
    return unicodedata.normalize("NFKC", text).lower().translate(_CHARACTERS).split()
