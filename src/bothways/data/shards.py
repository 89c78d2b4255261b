"""Tokenised text on disk: content token ids and document boundaries, memory-mapped, with a manifest.

A folder holds `00000.tokens` (uint16 or uint32, little-endian, no special tokens), `00000.offsets`
(uint64, where each document begins, then the end), further pairs of that kind, and `manifest.json`
with counts, checksums and the tokenizer's fingerprint. It is written beside its final name and renamed
when complete, so a folder under its name is whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int, UInt64

from bothways.config import config, from_json, to_json
from bothways.data.source import Document
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError
from bothways.files import replacing

# What is tokenised in one call: enough to keep all cores busy, little enough to stay small in memory
_BATCH_CHARACTERS = 1_000_000
_BLOCK = 1 << 24


@config
class Shard:
    """One pair of files: their common name, what they hold, and the sha256 of each."""

    name: str
    documents: int
    tokens: int
    tokens_sha256: str
    offsets_sha256: str


@config
class Manifest:
    """What a folder of shards holds.

    Attributes:
        tokenizer: the fingerprint of the tokenizer that made the ids.
        documents: all documents, the `empty` ones (without a token) among them.
        characters: of the texts as they were read.
    """

    format: Literal[1] = 1
    dtype: Literal["uint16", "uint32"]
    tokenizer: str
    documents: int
    empty: int
    tokens: int
    characters: int
    shards: tuple[Shard, ...]


def write_shards(documents: Iterable[Document], tokenizer: Tokenizer, folder: Path, shard_tokens: int = 1 << 28) -> Manifest:
    """Tokenise documents into a new folder; a shard ends with the document that reaches `shard_tokens`.

    Raises:
        InputError: the folder holds something already, no text at all, or a full disk. Nothing is left then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; remove it or choose another folder")
    with replacing(folder, kept="nothing was written") as temporary:
        temporary.mkdir()
        manifest = _Writer(temporary, tokenizer, shard_tokens).write(documents)
        if manifest.tokens == 0:
            raise InputError(f"{folder}: no text in {manifest.documents} documents: nothing to learn from")
        _write(temporary / "manifest.json", to_json(manifest).encode())
    return manifest


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
        path = folder / "manifest.json"
        if not path.is_file():
            raise InputError(f"{folder}: no tokenised text (no manifest.json); make it with write_shards or `bothways pretrain`")
        self.manifest = from_json(Manifest, path.read_text(encoding="utf-8"), str(path))
        if self.manifest.tokenizer != tokenizer.fingerprint:
            raise InputError(f"{folder}: made with another tokenizer; tokenise the text again with the one in use")
        for shard in self.manifest.shards:
            _check(folder / f"{shard.name}.tokens", shard.tokens * self._dtype.itemsize, shard.tokens_sha256, check)
            _check(folder / f"{shard.name}.offsets", (shard.documents + 1) * 8, shard.offsets_sha256, check)

    def read(self, document: int, start: int, end: int) -> Int[np.ndarray, " tokens"]:
        """The content ids of a document from token `start` to `end`, int32."""
        shard = int(np.searchsorted(self._first, document, side="right")) - 1
        begin = int(self._offsets[shard][document - self._first[shard]])
        return self._maps[shard][begin + start : begin + end].astype(np.int32)

    @cached_property
    def lengths(self) -> Int[np.ndarray, " documents"]:
        return np.concatenate([np.diff(offsets.astype(np.int64)) for offsets in self._offsets])

    def __getstate__(self) -> dict[str, object]:
        # a worker process maps the files itself; a pickled map would carry their contents
        return {"folder": self.folder, "manifest": self.manifest}

    @property
    def _dtype(self) -> np.dtype:
        return np.dtype(self.manifest.dtype).newbyteorder("<")

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


class _Writer:
    """Collects documents and writes a shard whenever enough tokens have come together."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, shard_tokens: int) -> None:
        self.folder, self.tokenizer, self.shard_tokens = folder, tokenizer, shard_tokens
        self.dtype: Literal["uint16", "uint32"] = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
        self.shards: list[Shard] = []
        self.pending: list[np.ndarray] = []
        self.pending_tokens = self.empty = self.characters = 0

    def write(self, documents: Iterable[Document]) -> Manifest:
        for texts in _batches(documents):
            self.characters += sum(map(len, texts))
            for ids in self.tokenizer.encode(texts, specials=False):
                self.pending.append(ids.astype(self.dtype))
                self.pending_tokens += len(ids)
                self.empty += not len(ids)
                if self.pending_tokens >= self.shard_tokens:
                    self._flush()
        if self.pending:
            self._flush()
        return Manifest(
            dtype=self.dtype,
            tokenizer=self.tokenizer.fingerprint,
            documents=sum(shard.documents for shard in self.shards),
            empty=self.empty,
            tokens=sum(shard.tokens for shard in self.shards),
            characters=self.characters,
            shards=tuple(self.shards),
        )

    def _flush(self) -> None:
        offsets = np.cumsum([0, *map(len, self.pending)])
        name = f"{len(self.shards):05d}"
        tokens = np.concatenate(self.pending).astype(np.dtype(self.dtype).newbyteorder("<"))
        self.shards.append(
            Shard(
                name=name,
                documents=len(self.pending),
                tokens=len(tokens),
                tokens_sha256=_write(self.folder / f"{name}.tokens", tokens.tobytes()),
                offsets_sha256=_write(self.folder / f"{name}.offsets", offsets.astype("<u8").tobytes()),
            )
        )
        self.pending, self.pending_tokens = [], 0


def _batches(documents: Iterable[Document]) -> Iterator[list[str]]:
    texts: list[str] = []
    characters = 0
    for document in documents:
        texts.append(document.text)
        characters += len(document.text) + 1  # empty texts count too
        if characters >= _BATCH_CHARACTERS:
            yield texts
            texts, characters = [], 0
    if texts:
        yield texts


def _write(path: Path, content: bytes) -> str:
    """Write a file; its sha256."""
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


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
