"""Tokenised text on disk: content token ids and document boundaries, memory-mapped, with a manifest.

A folder holds `00000.tokens` (uint16 or uint32, little-endian, no special tokens), `00000.offsets`
(uint64, where each document begins, then the end), further pairs of that kind, and `manifest.json`
with counts, checksums and the tokenizer's fingerprint. It is written beside its final name
(`data/shard_writer.py`) and renamed when complete, so a folder under its name is whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int, UInt64

from bothways.config import config, from_json
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError

MANIFEST = "manifest.json"
_BLOCK = 1 << 24
# Tokens of a block of documents
_TOGETHER = 1 << 22


@config
class Shard:
    """One pair of files: their common name, what they hold, and the sha256 of each.

    Attributes:
        empty, characters, texts_sha256: of the texts it was made from; what an interrupted writing goes on by.
            Shards of older versions do not have them.
    """

    name: str
    documents: int
    tokens: int
    tokens_sha256: str
    offsets_sha256: str
    empty: int | None = None
    characters: int | None = None
    texts_sha256: str | None = None


@config
class Manifest:
    """What a folder of shards holds.

    Attributes:
        tokenizer: the fingerprint of the tokenizer that made the ids.
        documents: all documents, the `empty` ones (without a token) among them.
        characters: of the texts as they were read.
        shard_tokens: how many tokens a shard was ended at.
    """

    format: Literal[1] = 1
    dtype: Literal["uint16", "uint32"]
    tokenizer: str
    documents: int
    empty: int
    tokens: int
    characters: int
    shard_tokens: int | None = None
    shards: tuple[Shard, ...]


class Shards:
    """A folder of shards, open for reading.

    Attributes:
        lengths: int64 [documents], the tokens of each document.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, check: Literal["contents", "sizes"] = "contents") -> None:
        """Open a folder; `check` compares every byte with the checksums, or only the files' sizes.

        Raises:
            InputError: no manifest, another tokenizer's ids, or a file missing, cut short or changed; the message names it.
        """
        self.folder = folder
        path = folder / MANIFEST
        if not path.is_file():
            raise InputError(f"{folder}: no tokenised text (no {MANIFEST}); make it with `bothways tokenize`")
        self.manifest = from_json(Manifest, path.read_text(encoding="utf-8"), str(path))
        if self.manifest.tokenizer != tokenizer.fingerprint:
            raise InputError(f"{folder}: made with another tokenizer; tokenise the text again with the one in use")
        for shard in self.manifest.shards:
            check_shard(folder, shard, self._dtype, check)

    def read(self, document: int, start: int, end: int) -> Int[np.ndarray, " tokens"]:
        """The content ids of a document from token `start` to `end`, int32."""
        shard = int(np.searchsorted(self._first, document, side="right")) - 1
        begin = int(self._offsets[shard][document - self._first[shard]])
        return self._maps[shard][begin + start : begin + end].astype(np.int32)

    def counts(self, size: int) -> Int[np.ndarray, " size"]:
        """How often each of `size` ids occurs in all documents."""
        blocks = (tokens[begin : begin + _BLOCK] for tokens in self._maps for begin in range(0, len(tokens), _BLOCK))
        return sum((np.bincount(block, minlength=size) for block in blocks), np.zeros(size, np.int64))

    def blocks(
        self, documents: Int[np.ndarray, " chosen"] | None = None
    ) -> Iterator[tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " documents"]]]:
        """Whole documents, some million tokens at a time, and their lengths: of those asked for; None: of all."""
        documents = np.arange(len(self.lengths)) if documents is None else documents
        lengths = self.lengths[documents]
        # every document falls to the block that its first token is in
        numbers = (np.cumsum(lengths) - lengths) // _TOGETHER
        for block in np.unique(numbers):
            of_block = documents[numbers == block]
            texts = [self.read(int(i), 0, int(self.lengths[i])) for i in of_block]
            yield np.concatenate(texts), self.lengths[of_block]

    @cached_property
    def lengths(self) -> Int[np.ndarray, " documents"]:
        return np.concatenate([np.diff(offsets.astype(np.int64)) for offsets in self._offsets])

    def __getstate__(self) -> dict[str, object]:
        # a worker process maps the files itself; a pickled map would carry their contents
        return {"folder": self.folder, "manifest": self.manifest}

    @property
    def _dtype(self) -> np.dtype:
        return stored(self.manifest.dtype)

    @cached_property
    def _first(self) -> Int[np.ndarray, " shards"]:
        """The number of each shard's first document."""
        counts = np.array([shard.documents for shard in self.manifest.shards])
        return np.cumsum(counts) - counts

    @cached_property
    def _offsets(self) -> list[UInt64[np.ndarray, " boundaries"]]:
        return [np.fromfile(self.folder / f"{shard.name}.offsets", dtype="<u8") for shard in self.manifest.shards]

    @cached_property
    def _maps(self) -> list[np.ndarray]:
        paths = [self.folder / f"{shard.name}.tokens" for shard in self.manifest.shards]
        return [np.memmap(path, self._dtype, mode="r") if path.stat().st_size else np.zeros(0, self._dtype) for path in paths]


def stored(dtype: Literal["uint16", "uint32"]) -> np.dtype:
    """The numbers as they are in the files: little-endian."""
    return np.dtype(dtype).newbyteorder("<")


def check_shard(folder: Path, shard: Shard, dtype: np.dtype, check: Literal["contents", "sizes"]) -> None:
    """Compare the files of a shard with what is said of them. Raises InputError, naming the file."""
    _check(folder / f"{shard.name}.tokens", shard.tokens * dtype.itemsize, shard.tokens_sha256, check)
    _check(folder / f"{shard.name}.offsets", (shard.documents + 1) * 8, shard.offsets_sha256, check)


def _check(path: Path, size: int, sha256: str, check: Literal["contents", "sizes"]) -> None:
    if not path.is_file():
        raise InputError(f"{path}: missing; tokenise the text again")
    if path.stat().st_size != size:
        raise InputError(f"{path}: {path.stat().st_size} bytes where the manifest says {size}; tokenise the text again")
    if check == "contents":
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        if digest.hexdigest() != sha256:
            raise InputError(f"{path}: the contents have changed since they were written; tokenise the text again")
