"""Cutting long documents into pieces that a model reads whole.

A cut lies at a paragraph's end where there is one in the last quarter of the room, else at a sentence's
or line's end, else between words, else between tokens. Nothing but white space falls between two chunks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bothways.config import config
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError

# Best first. A match ends where the next chunk may begin.
_BREAKS = (
    re.compile(r"\n[^\S\n]*\n\s*"),
    re.compile("[.!?\u2026][\"')\\]\u00bb\u2019\u201d]*\\s+|[\u3002\uff01\uff1f]\\s*|\n\\s*"),
    re.compile(r"\s+"),
)
_SPACE = re.compile(r"\s*")
# Characters tokenised at once, per token of room: a long text is never tokenised as a whole, and few slabs twice.
_SLAB = 64


@config
class Chunking:
    """How documents are cut.

    Attributes:
        max_tokens: the most tokens of a chunk as the model reads it, special tokens and the document
            prompt included; None is the model's own maximum.
        overlap: the most tokens of a chunk's end that the next one begins with.
    """

    max_tokens: int | None = None
    overlap: int = 0


@dataclass(frozen=True)
class Chunk:
    """A piece of a document: `text` is its characters from `start` to `end`."""

    document: str
    number: int
    start: int
    end: int
    text: str


class Chunker:
    """Cuts documents so that each chunk, behind the prompt and between special tokens, fits `limit` tokens."""

    def __init__(self, tokenizer: Tokenizer, limit: int, overlap: int = 0, prompt: str = "") -> None:
        """Raises InputError where the limit leaves no room, or the overlap takes more than half of it."""
        self.tokenizer, self.limit, self.overlap, self.prompt = tokenizer, limit, overlap, prompt
        self._bare = self._length("")
        self._room = limit - self._bare
        if self._room < 1:
            raise InputError(f"max_tokens={limit} leaves no room beside {self._bare} special and prompt tokens; raise it")
        if not 0 <= overlap <= self._room // 2:
            raise InputError(f"overlap={overlap} must lie between 0 and half of a chunk's {self._room} tokens")

    def cut(self, document: str, text: str) -> list[Chunk]:
        """The chunks of a text in order; none where it has no tokens.

        Raises:
            InputError: a single character that needs more tokens than there is room for.
        """
        spans = self._spans(document, text)
        return [Chunk(document, number, start, end, text[start:end]) for number, (start, end) in enumerate(spans)]

    def _spans(self, document: str, text: str) -> Iterator[tuple[int, int]]:
        tokens = _TokenStarts(self.tokenizer, text, self._room)
        stop, covered = len(text.rstrip()), 0
        start = _skip_space(text, 0)
        while start < stop:
            starts = tokens.after(start, self._room)
            cut = self._cut(document, text, start, stop, starts)
            end = start + len(text[start:cut].rstrip())
            if end <= covered:  # all of it is overlap: go on where the last chunk ended
                start = _skip_space(text, covered)
                continue
            if self._length(text[start:end]) > self._bare:  # else only characters that the tokenizer drops
                yield start, end
            covered = end
            start = stop if cut >= stop else self._next(text, start, cut, starts)

    def _cut(self, document: str, text: str, start: int, stop: int, starts: np.ndarray) -> int:
        """Where the chunk that begins at `start` ends; `starts` are the places of its tokens and of the one behind."""
        if len(starts) == 0:
            return stop
        count = min(len(starts), self._room)
        while count > 0:
            high = int(starts[count]) if count < len(starts) else stop
            low = int(starts[count - max(1, count // 4)])
            cut = high if high == stop else _last_break(text, low, high)
            over = self._length(text[start:cut].rstrip()) - self.limit
            if over <= 0 and cut > start:
                return cut
            count -= max(1, over)  # a cut can change how the text beside it is tokenised
        if self._length(text[start]) > self.limit:
            raise InputError(f"{document}: the character at {start} alone has more than {self._room} tokens; raise max_tokens")
        return start + 1

    def _next(self, text: str, start: int, cut: int, starts: np.ndarray) -> int:
        """Where the chunk behind `cut` begins: at a word, at most `overlap` tokens back."""
        if not self.overlap:
            return _skip_space(text, cut)
        place = max(int(np.searchsorted(starts, cut)) - self.overlap, 1)
        if place < len(starts) and starts[place] == starts[place - 1]:  # within a character of several tokens
            place = int(np.searchsorted(starts, starts[place], side="right"))
        back = min(int(starts[place]), cut) if place < len(starts) else cut
        if text[back - 1].isspace() or text[back].isspace():
            return _skip_space(text, back)
        word = _BREAKS[-1].search(text, back, cut)
        return _skip_space(text, word.end()) if word else back

    def _length(self, text: str) -> int:
        return len(self.tokenizer.encode([self.prompt + text])[0])


class _TokenStarts:
    """The characters at which the tokens of a text start, found slab by slab."""

    def __init__(self, tokenizer: Tokenizer, text: str, room: int) -> None:
        self._tokenizer, self._text, self._slab = tokenizer, text, room * _SLAB
        self._read(0, self._slab)

    def after(self, start: int, count: int) -> np.ndarray:
        """int64, the first `count` + 1 tokens' starts from `start` on; fewer at the end of the text."""
        size = self._slab
        while True:
            first = int(np.searchsorted(self._starts, start))
            if len(self._starts) - first > count or self._end >= len(self._text):
                return self._starts[first : first + count + 1]
            self._read(start, size)
            size *= 2

    def _read(self, start: int, size: int) -> None:
        self._end = start + size
        encoding = self._tokenizer.backend.encode(self._text[start : self._end], add_special_tokens=False)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        self._starts = np.maximum.accumulate(offsets[:, 0] + start)


def _last_break(text: str, low: int, high: int) -> int:
    """The best place to cut between `low` and `high`; `high` where there is none."""
    for pattern in _BREAKS:
        ends = [match.end() for match in pattern.finditer(text, low, high)]
        if ends:
            return ends[-1]
    return high


def _skip_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start
