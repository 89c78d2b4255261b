"""A tokenizer as the rest of the house sees it: texts to id arrays, and back.

It wraps a `tokenizers.Tokenizer` with truncation and padding switched off, and reads the folder
layouts of Hugging Face: `tokenizer.json`, or `vocab.txt` (WordPiece), or `vocab.json` + `merges.txt`
(byte-level BPE), with `tokenizer_config.json` beside them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders as token_decoders
from tokenizers import models, normalizers, pre_tokenizers, processors

from bothways.errors import InputError
from bothways.files import write_text

# The field's two spellings of each special token, for folders that do not name theirs.
_CUSTOMARY = {
    "pad_token": ("[PAD]", "<pad>"),
    "mask_token": ("[MASK]", "<mask>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "unk_token": ("[UNK]", "<unk>"),
}
# transformers writes 1e30 for "no limit"
_NO_LIMIT = 10**9


@dataclass(frozen=True)
class Template:
    """The special tokens around one sequence, or around and between two, with their token types."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[int, ...]
    """The token type of each part in turn: before, first, between, second, after."""


class Tokenizer:
    """Texts to token ids and back, without truncation or padding.

    Attributes:
        backend: the wrapped `tokenizers.Tokenizer`.
        tokens: the special tokens by their Hugging Face name (`mask_token`: `[MASK]`).
        max_length: the longest sequence the folder allows, special tokens included; None if unstated.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, tokens: dict[str, str] | None = None, max_length: int | None = None
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.tokens = tokens if tokens is not None else _customary(backend)
        self.max_length = max_length

    @classmethod
    def load(cls, folder: Path, lowercase: bool = True) -> Tokenizer:
        """Read a tokenizer from a model folder.

        Args:
            lowercase: whether a bare `vocab.txt` is of small letters, where nothing beside it says.

        Raises:
            InputError: no tokenizer files, or files that cannot be read; the message names them.
        """
        settings = {"do_lower_case": lowercase, **(_json(folder / "tokenizer_config.json") or {})}
        named = {**(_json(folder / "special_tokens_map.json") or {}), **settings}
        try:
            backend = _backend(folder, settings)
        except Exception as error:  # the Rust library raises bare Exception
            if isinstance(error, InputError):
                raise
            raise InputError(f"{folder}: the tokenizer cannot be read: {error}") from None
        tokens = _customary(backend)
        for name in _CUSTOMARY:
            content = named.get(name)
            content = content.get("content") if isinstance(content, dict) else content
            if isinstance(content, str) and backend.token_to_id(content) is not None:
                tokens[name] = content
        limit = settings.get("model_max_length")
        return cls(backend, tokens, int(limit) if isinstance(limit, int | float) and limit < _NO_LIMIT else None)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, as `transformers` reads them.

        Raises:
            InputError: one cannot be written (a full disk); an older one is left as it was.
        """
        settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **dict(sorted(self.tokens.items()))}
        if self.max_length is not None:
            settings["model_max_length"] = self.max_length
        if self.template.types != (0,) * 5:
            settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        else:
            settings["model_input_names"] = ["input_ids", "attention_mask"]
        write_text(folder / "tokenizer.json", self.backend.to_str(pretty=True))
        write_text(folder / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")

    def encode(self, texts: Sequence[str], specials: bool = True) -> list[np.ndarray]:
        """int32 ids of each text, with the special tokens of a single sequence unless told not to."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        return [self.wrap(row) for row in ids] if specials else ids

    def encode_words(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """int32 ids of each text without special tokens, and the number of the word that each belongs to.

        Words are what the tokenizer splits before it makes pieces; a token that was added whole is a word of its own.
        """
        rows = []
        for encoding in self.backend.encode_batch(list(texts), add_special_tokens=False):
            # an added token has no word, and gets a number that no word has
            words = [-1 - place if word is None else word for place, word in enumerate(encoding.word_ids)]
            rows.append((np.array(encoding.ids, dtype=np.int32), np.array(words, dtype=np.int64)))
        return rows

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """int32 ids and token types of each pair of texts."""
        flat = self.encode([text for pair in pairs for text in pair], specials=False)
        return [self.join(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]

    def wrap(self, ids: np.ndarray) -> np.ndarray:
        """Content ids with the special tokens of a single sequence around them."""
        return np.concatenate([self._before, ids, self.after])

    def join(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Content ids of two texts as one sequence with special tokens, and its token types."""
        template = self.template
        parts = (template.before, first, template.between, second, template.after)
        ids = np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])
        return ids, np.repeat(np.array(template.types, dtype=np.int32), [len(part) for part in parts])

    def decode(self, ids: Sequence[int] | np.ndarray, skip_special_tokens: bool = True) -> str:
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id (ids need not be contiguous)."""
        return max(self.backend.get_vocab().values(), default=-1) + 1

    @cached_property
    def special_ids(self) -> frozenset[int]:
        added = self.backend.get_added_tokens_decoder()
        named = {self.backend.token_to_id(token) for token in self.tokens.values()}
        return frozenset({i for i, token in added.items() if token.special} | (named - {None}))  # type: ignore[arg-type]

    @cached_property
    def template(self) -> Template:
        """The special tokens the post-processor adds, read off a probe pair."""
        probe = self.backend.encode("a", "a")
        owners = probe.sequence_ids
        first, second = owners.index(0), owners.index(1)
        end = len(owners) - owners[::-1].index(1)
        middle = first + owners.count(0)
        cuts = ((0, first), (first, middle), (middle, second), (second, end), (end, len(owners)))
        kinds = tuple(probe.type_ids[a] if b > a else 0 for a, b in cuts)
        if not cuts[2][1] > cuts[2][0]:
            kinds = (*kinds[:2], kinds[1], *kinds[3:])
        return Template(
            before=tuple(probe.ids[:first]), between=tuple(probe.ids[middle:second]), after=tuple(probe.ids[end:]), types=kinds
        )

    @property
    def specials_per_sequence(self) -> int:
        return len(self._before) + len(self.after)

    @property
    def specials_per_pair(self) -> int:
        return len(self.template.before) + len(self.template.between) + len(self.template.after)

    @property
    def pad_id(self) -> int | None:
        return self._id("pad_token")

    @property
    def mask_id(self) -> int | None:
        return self._id("mask_token")

    @property
    def unk_id(self) -> int | None:
        return self._id("unk_token")

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the tokenizer's JSON: equal fingerprints give equal ids."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()

    def _id(self, name: str) -> int | None:
        token = self.tokens.get(name)
        return None if token is None else self.backend.token_to_id(token)

    @cached_property
    def _around(self) -> tuple[np.ndarray, np.ndarray]:
        probe = self.backend.encode("a")
        owners = probe.sequence_ids
        first, end = owners.index(0), len(owners) - owners[::-1].index(0)
        return np.array(probe.ids[:first], dtype=np.int32), np.array(probe.ids[end:], dtype=np.int32)

    @property
    def _before(self) -> np.ndarray:
        return self._around[0]

    @property
    def after(self) -> np.ndarray:
        """The special tokens behind a single sequence."""
        return self._around[1]


def _customary(backend: tokenizers.Tokenizer) -> dict[str, str]:
    found = {name: next((t for t in both if backend.token_to_id(t) is not None), None) for name, both in _CUSTOMARY.items()}
    return {name: token for name, token in found.items() if token is not None}


def _json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def _backend(folder: Path, settings: dict[str, Any]) -> tokenizers.Tokenizer:
    if (folder / "tokenizer.json").exists():
        return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    if (folder / "vocab.txt").exists():
        return _wordpiece(folder / "vocab.txt", settings)
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        return _byte_level(folder, settings)
    raise InputError(f"{folder}: no tokenizer (tokenizer.json, vocab.txt, or vocab.json with merges.txt)")


def _wordpiece(vocabulary: Path, settings: dict[str, Any]) -> tokenizers.Tokenizer:
    """BERT's tokenizer from its word list: basic cleaning and splitting, then WordPiece."""
    # not splitlines(): multilingual lists hold other line separators as words
    words = vocabulary.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    vocab = {word: i for i, word in enumerate(words)}
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    lowercase = settings.get("do_lower_case", True)
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase,
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = token_decoders.WordPiece()
    backend.add_special_tokens([t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in vocab])
    missing = [token for token in ("[CLS]", "[SEP]") if token not in vocab]
    if missing:
        raise InputError(f"{vocabulary}: no {' and '.join(missing)} in the vocabulary; is it a BERT word list?")
    backend.post_processor = bert_template(vocab["[CLS]"], vocab["[SEP]"])
    return backend


def _byte_level(folder: Path, settings: dict[str, Any]) -> tokenizers.Tokenizer:
    """RoBERTa's tokenizer: GPT-2's byte-level BPE with <s> and </s> around, </s></s> between."""
    backend = tokenizers.Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    spaced = settings.get("add_prefix_space", False)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    backend.decoder = token_decoders.ByteLevel()
    first, last = backend.token_to_id("<s>"), backend.token_to_id("</s>")
    if first is None or last is None:
        raise InputError(f"{folder / 'vocab.json'}: no <s> and </s>; is it a RoBERTa vocabulary?")
    special = [t for t in ("<s>", "<pad>", "</s>", "<unk>") if backend.token_to_id(t) is not None]
    backend.add_special_tokens(special)
    if backend.token_to_id("<mask>") is not None:
        backend.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True, special=True)])
    backend.post_processor = processors.RobertaProcessing(("</s>", last), ("<s>", first), add_prefix_space=spaced)
    return backend


def bert_template(cls_id: int, sep_id: int, cls: str = "[CLS]", sep: str = "[SEP]") -> processors.TemplateProcessing:
    """BERT's special tokens: [CLS] A [SEP], and [CLS] A [SEP] B [SEP] with types 0 and 1."""
    return processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, cls_id), (sep, sep_id)],
    )
