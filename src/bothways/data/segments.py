"""Where the sentences of a text end, told from its token ids alone, so that tokenised text needs nothing beside its tokens.

A sentence ends behind a token that ends with one of `. ! ? …` (or their Chinese, Japanese, Arabic and Devanagari kin) or that
holds a line break, together with the closing quotes and brackets that follow it. A full stop between two digits ends nothing; one
behind an abbreviation does. Pretraining on pairs of stretches of sentences does not need them exact. Of code as `data/code`
writes it, each line is one, and signs end none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from bothways.data.pieces import Pieces, Spelling
from bothways.data.tokenizer import Tokenizer

Ends = Literal["signs", "lines"]
"""What ends a sentence: its final sign or a line break, or line breaks alone."""

_FINAL = ".!?…\N{IDEOGRAPHIC FULL STOP}\N{FULLWIDTH EXCLAMATION MARK}\N{FULLWIDTH QUESTION MARK}؟।"
_CLOSING = "\"'”\N{RIGHT SINGLE QUOTATION MARK}»)]}」』"


@dataclass(frozen=True, eq=False)
class Sentences:
    """Which tokens of a vocabulary end a sentence.

    Attributes:
        final: those that end one.
        closing: those that belong to the sentence that ends before them.
        before, behind: those that end with a digit; those that begin with one, right behind the token before them.
    """

    final: Bool[np.ndarray, " vocabulary"]
    closing: Bool[np.ndarray, " vocabulary"]
    before: Bool[np.ndarray, " vocabulary"]
    behind: Bool[np.ndarray, " vocabulary"]

    @classmethod
    def of(cls, tokenizer: Tokenizer, ends: Ends = "signs") -> Sentences:
        """Raises InputError for a vocabulary that marks the ends of words."""
        pieces = Pieces(tokenizer)
        tables = np.zeros((4, tokenizer.vocab_size), dtype=bool)
        # a WordPiece vocabulary does not say whether a space came before a digit or a quote
        spaced = pieces.marks in ("bytes", "metaspace")
        for piece, number in pieces.ids.items():
            spelling = None if number in tokenizer.special_ids else pieces.spelling(piece)
            if spelling is not None:
                tables[:, number] = _kinds(spelling, spaced) if ends == "signs" else ("\n" in spelling.text, False, False, False)
        return cls(*tables)

    def ends(self, ids: Int[np.ndarray, " tokens"]) -> Int[np.ndarray, " sentences"]:
        """The place behind the last token of each sentence, ascending; the last one is the end of the text."""
        if not len(ids):
            return np.zeros(0, np.int64)
        final = self.final[ids]
        final[1:-1] &= ~(self.before[ids[:-2]] & self.behind[ids[2:]])
        ending = final.copy()
        ending[1:] |= self.closing[ids[1:]] & final[:-1]
        last = np.append(ending[:-1] & ~ending[1:], True)
        return np.flatnonzero(last) + 1


def in_pieces(ends: Int[np.ndarray, " sentences"], room: int, piece: int) -> Int[np.ndarray, " pieces"]:
    """The same ends, and in each sentence of more than `room` tokens one after every `piece` of it."""
    sizes = np.diff(ends, prepend=0)
    counts = np.where(sizes > room, -(-sizes // piece), 1)
    last = np.cumsum(counts)
    places = np.arange(int(last[-1])) - np.repeat(last - counts, counts)
    found = np.repeat(ends - sizes, counts) + (places + 1) * piece
    found[last - 1] = ends
    return found


def _kinds(spelling: Spelling, spaced: bool) -> tuple[bool, bool, bool, bool]:
    text = spelling.text
    bare = text.rstrip(_CLOSING)
    return (
        bare.endswith(tuple(_FINAL)) or "\n" in text,
        bool(text) and not bare and not (spaced and spelling.begins),
        text[-1:].isdigit(),
        text[:1].isdigit() and not (spaced and spelling.begins),
    )
