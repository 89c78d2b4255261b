"""A model of no intelligence that search can be tested with: words hashed into a few buckets, one token a word."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from bothways.data.tokenizer import Tokenizer
from bothways.retrieval.words import words

SIZE = 64


def word_tokenizer() -> Tokenizer:
    """A token for every run of letters and every run of signs, between [CLS] and [SEP]."""
    backend = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return Tokenizer(backend)


def byte_tokenizer() -> Tokenizer:
    """A token for every byte; no special tokens, so that a character may be several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return Tokenizer(backend)


class Toy:
    """An `Embedder`. It remembers what it embedded, and calls `before` ahead of each batch of documents."""

    def __init__(self, name: str = "toy", fingerprint: str = "1", max_seq_length: int = 18, prompt: str = "") -> None:
        self.name, self.fingerprint, self.max_seq_length, self.document_prompt = name, fingerprint, max_seq_length, prompt
        self.tokenizer: Tokenizer | None = word_tokenizer()
        self.embedded: list[str] = []
        self.batches = 0
        self.before: Callable[[int], None] = lambda batch: None

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Counts of hashed words; a small constant keeps texts without words from being zero."""
        vectors = np.full((len(texts), SIZE), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for word in words(text):
                vectors[row, int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % SIZE] += 1
        return vectors

    def encode_query(self, texts: Sequence[str]) -> np.ndarray:
        return self.encode(texts)

    def encode_document(self, texts: Sequence[str]) -> np.ndarray:
        self.before(self.batches)
        self.batches += 1
        self.embedded += texts
        return self.encode(texts)


class Fixed:
    """An `Embedder` that knows the vectors of some texts, and those of some that are others as queries."""

    def __init__(
        self, vectors: dict[str, Sequence[float]], queries: dict[str, Sequence[float]] | None = None, name: str = "fixed"
    ) -> None:
        self.vectors, self.queries, self.name, self.fingerprint = vectors, vectors | (queries or {}), name, name
        self.max_seq_length, self.document_prompt = 18, ""
        self.tokenizer: Tokenizer | None = word_tokenizer()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self.vectors[text] for text in texts], np.float32)

    encode_document = encode

    def encode_query(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self.queries[text] for text in texts], np.float32)
