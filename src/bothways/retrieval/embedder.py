"""What search asks of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError


@runtime_checkable
class Embedder(Protocol):
    """Texts to vectors, float32 [texts, size]. `bothways.model.Model` is one."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints give equal vectors."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None: ...

    @property
    def max_seq_length(self) -> int:
        """The longest text it reads, in tokens, special tokens and prompt included."""
        ...

    @property
    def document_prompt(self) -> str:
        """What `encode_document` puts before each text; it takes part of `max_seq_length`."""
        ...

    def encode(self, texts: Sequence[str]) -> np.ndarray: ...

    def encode_query(self, texts: Sequence[str]) -> np.ndarray: ...

    def encode_document(self, texts: Sequence[str]) -> np.ndarray: ...


def tokenizer_of(embedder: Embedder) -> Tokenizer:
    """The embedder's tokenizer.

    Raises:
        InputError: it has none, so texts cannot be measured or read.
    """
    if embedder.tokenizer is None:
        raise InputError(f"{embedder.name or 'this model'} has no tokenizer; add tokenizer.json to its folder")
    return embedder.tokenizer
