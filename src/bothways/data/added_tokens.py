"""Words that a tokenizer is to read as one token each."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from bothways.data.pieces import SPACE, Pieces
from bothways.data.reading import read_lines
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError


def read_tokens(file: Path) -> tuple[str, ...]:
    """The tokens of a file, one a line, without the blanks around them; empty lines are passed over.

    Raises:
        InputError: it cannot be read, has none, or one twice.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file; it has a new token on each line")
    found: dict[str, int] = {}
    for number, line in read_lines(file, "utf-8"):
        token = line.strip()
        if token in found:
            raise InputError(f"{file}:{number}: {token!r} stands in line {found[token]} already; remove one")
        if token:
            found[token] = number
    if not found:
        raise InputError(f"{file}: no tokens; it has a new token on each line")
    return tuple(found)


def cut(tokenizer: Tokenizer, word: str) -> list[int]:
    """The ids that a word has within a text, behind another one."""
    before, both = tokenizer.encode(["a", f"a {word}"], specials=False)
    return both[len(before) :].tolist()


def is_known(tokenizer: Tokenizer, word: str) -> bool:
    """Whether a tokenizer reads a word as one token, which is not the unknown one."""
    ids = cut(tokenizer, word)
    return len(ids) == 1 and ids[0] != tokenizer.unk_id


def with_tokens(tokenizer: Tokenizer, tokens: Sequence[str]) -> Tokenizer:
    """A tokenizer that reads these words as one token each; those it reads so already are left as they are.

    Their ids follow the old ones. They are found in a text as whole words (in scripts that are written without spaces, anywhere),
    in the letters that the tokenizer makes of a text, small ones maybe, and before it cuts anything. Where the space before a
    word belongs to it (byte-level, sentencepiece), the new token takes it along, and decoding does not give it back, as with
    RoBERTa's mask token.

    Raises:
        InputError: a token that is empty or has blanks around it, or one that would never be found: it is another's once both
            are normalised, or nothing is left of it; or a tokenizer whose ids have gaps.
    """
    if fault := next((token for token in tokens if not token or token != token.strip()), None):
        raise InputError(f"a new token has no blanks around it, and {fault!r} has; remove them")
    new = [token for token in tokens if not is_known(tokenizer, token)]
    if not new:
        return tokenizer
    grown = Tokenizer(tokenizers.Tokenizer.from_str(tokenizer.backend.to_str()), dict(tokenizer.tokens), tokenizer.max_length)
    spaced = Pieces(tokenizer).marks in SPACE
    grown.backend.add_tokens([_added(tokenizer, token, spaced) for token in new])
    probes = grown.encode([f"a {token} a" for token in new], specials=False)
    for token, ids in zip(new, probes, strict=True):
        number = grown.backend.token_to_id(token)
        if number is None or number < tokenizer.vocab_size:
            raise InputError(f"the ids of this tokenizer have gaps, in which {token!r} would land; tokens cannot be added to it")
        if number not in ids:
            raise InputError(f"{token!r} would never be found in a text: the tokenizer reads it as another token; remove it")
    return grown


def _added(tokenizer: Tokenizer, token: str, spaced: bool) -> tokenizers.AddedToken:
    normalizer = tokenizer.backend.normalizer
    # where the normalizer writes spaces as signs, whole words are only to be told in the text as it was
    signs = normalizer is not None and SPACE["metaspace"] in normalizer.normalize_str(f"a {token}")
    return tokenizers.AddedToken(token, single_word=not _unspaced(token), lstrip=spaced, normalized=not signs, special=False)


def _unspaced(token: str) -> bool:
    """Whether a token is of a script that is written without spaces between words."""
    names = (unicodedata.name(sign, "") for sign in token)
    return any(name.startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")) for name in names)
