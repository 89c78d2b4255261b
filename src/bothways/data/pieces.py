"""What the pieces of a vocabulary stand for, so that one tokenizer's pieces can be spelt in another's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import decoders, models

from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError

Marks = Literal["continuation", "bytes", "metaspace", "none"]
"""How a vocabulary tells where words begin: inner pieces are marked (WordPiece's ##), the space belongs to the word, as a
byte (GPT-2's Ġ) or as a sign (sentencepiece's ▁), or pieces are whole words."""

SPACE = {"bytes": "Ġ", "metaspace": "▁"}
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Spelling:
    """The text of a piece, without the space that may stand before it, and whether it begins a word."""

    text: str
    begins: bool


class Pieces:
    """A tokenizer's vocabulary as texts.

    Attributes:
        marks: how it tells where words begin.
        ids: every piece and its id, special ones too.

    Raises:
        InputError: a vocabulary that marks the ends of words.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tree = json.loads(tokenizer.backend.to_str())
        self._tokenizer = tokenizer
        self._prefix: str = tree["model"].get("continuing_subword_prefix") or ""
        if tree["model"].get("end_of_word_suffix"):
            raise InputError(
                f"a vocabulary that marks the ends of words ({tree['model']['end_of_word_suffix']}) is not supported"
            )
        self.marks = marks_of(tree, self._prefix)
        self.ids: dict[str, int] = tokenizer.backend.get_vocab()
        self._added = {token.content for token in tokenizer.backend.get_added_tokens_decoder().values()}
        self._inner = self._continuations(tree["model"]) if self.marks == "continuation" else None
        self._bytes = decoders.ByteLevel()

    def spelling(self, piece: str) -> Spelling | None:
        """What a piece stands for; None for a part of a character."""
        if piece in self._added or self.marks == "none":
            return Spelling(piece, True)
        if self.marks == "continuation":
            inner = piece.startswith(self._prefix) and piece != self._prefix
            return Spelling(piece.removeprefix(self._prefix), False) if inner else Spelling(piece, True)
        text = self._bytes.decode([piece]) if self.marks == "bytes" else piece.replace("▁", " ")
        if "\N{REPLACEMENT CHARACTER}" in text or (self.marks == "metaspace" and _BYTE.fullmatch(piece)):
            return None
        return Spelling(text.removeprefix(" "), text.startswith(" "))

    def spell(self, spelling: Spelling) -> list[int]:
        """The ids of the pieces that this tokenizer cuts such a text into; what it does not know is left out."""
        backend, space = self._tokenizer.backend, SPACE.get(self.marks, "")
        text = f" {spelling.text}" if space and spelling.begins else spelling.text
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)] if backend.pre_tokenizer else [text]
        if words and space and not spelling.begins:
            words[0] = words[0].removeprefix(space)  # put there as before the first word of a text
        ids: list[int] = []
        for number, word in enumerate(words):
            inner = self._known(self._inner, word) if self._inner and number == 0 and not spelling.begins else []
            # a sign of punctuation is always a word of its own
            ids += inner or self._known(backend.model, word)
        return ids

    def _known(self, model: Any, word: str) -> list[int]:
        unknown = self._tokenizer.unk_id
        return [token.id for token in (model.tokenize(word) if word else []) if token.id != unknown]

    def _continuations(self, model: dict[str, Any]) -> models.WordPiece:
        """A model of the inner pieces alone, without their mark: what cuts the rest of a word as the tokenizer does."""
        inner = {piece.removeprefix(self._prefix): i for piece, i in model["vocab"].items() if piece.startswith(self._prefix)}
        unknown = model["unk_token"]
        vocabulary = {**inner, unknown: model["vocab"][unknown]}
        return models.WordPiece(vocabulary, unk_token=unknown, continuing_subword_prefix="", max_input_chars_per_word=100)


def marks_of(tree: dict[str, Any], prefix: str) -> Marks:
    if tree["model"]["type"] == "WordPiece" and prefix:
        return "continuation"
    parts = list(_parts([tree["pre_tokenizer"], tree["decoder"]]))
    if any(part["type"] == "ByteLevel" for part in parts):
        return "bytes"
    if any("▁" in json.dumps(part, ensure_ascii=False) for part in parts):
        return "metaspace"
    return "none"


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    """The parts of nested sequences of pre-tokenizers and decoders."""
    if isinstance(tree, list):
        for one in tree:
            yield from _parts(one)
    elif isinstance(tree, dict):
        inner = [tree[key] for key in ("pretokenizers", "decoders") if key in tree]
        if inner:
            yield from _parts(inner)
        else:
            yield tree
