"""Writing shards: by any number of processes the same bytes, and after a kill from where it stood.

Until it is complete, a folder is called `.partial.NAME`. Its manifest speaks of the shards that are finished, with
the checksum of the texts each was made from. The next writing reads the texts again, which is quick, and keeps
the shards for as long as texts and files are those that the manifest speaks of.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bothways.config import from_json, to_json
from bothways.data.shards import MANIFEST, Manifest, Shard, check_shard, stored
from bothways.data.source import Document
from bothways.data.tokenizer import Tokenizer
from bothways.data.workers import in_order
from bothways.errors import InputError
from bothways.files import reported, sync, write_text

# What is tokenised in one call: enough to keep all cores busy, little enough to stay small in memory
_BATCH_CHARACTERS = 1_000_000

Told = Callable[[Sequence[Document], int], None]
"""Told of documents that are done, in order, and of the tokens made of them: none where their shard was there already."""


def write_shards(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    folder: Path,
    shard_tokens: int = 1 << 26,
    workers: int = 0,
    told: Told = lambda documents, tokens: None,
) -> Manifest:
    """Tokenise documents into a new folder; a shard ends with the document that reaches `shard_tokens`.

    Args:
        workers: processes that tokenise, one thread each; 0 does it in this one, on all cores. The bytes are the same.

    Raises:
        InputError: the folder holds something already, there is no text at all, a document cannot be read, or a full
            disk. Finished shards are kept, and the same call goes on with them; where there is none, nothing is left.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; remove it or choose another folder")
    partial = folder.with_name(f".partial.{folder.name}")
    with reported(folder, "finished shards are kept"):
        partial.mkdir(parents=True, exist_ok=True)
        writer = _Writer(partial, tokenizer, shard_tokens, told)
        try:
            manifest = writer.write(documents, workers)
            if manifest.tokens == 0:
                (partial / MANIFEST).unlink(missing_ok=True)
                raise InputError(f"{folder}: no text in {manifest.documents} documents: nothing to learn from")
            tokenizer.save(partial / "tokenizer")
            _finish(partial, manifest)
            partial.replace(folder)
            sync(folder.parent)
        except InputError as error:
            raise InputError(str(error).replace(str(partial), str(folder))) from error
        finally:
            if not (partial / MANIFEST).exists():
                shutil.rmtree(partial, ignore_errors=True)
    return manifest


@dataclass
class _Texts:
    """What is remembered of the texts of one shard."""

    documents: int = 0
    characters: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self.digest.update(len(data).to_bytes(8, "little"))
        self.digest.update(data)
        self.documents, self.characters = self.documents + 1, self.characters + len(text)


class _Writer:
    """Collects documents and writes a shard whenever enough tokens have come together."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, shard_tokens: int, told: Told) -> None:
        self.folder, self.tokenizer, self.shard_tokens, self.told = folder, tokenizer, shard_tokens, told
        self.dtype: Literal["uint16", "uint32"] = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
        self.shards: list[Shard] = []
        self._clear()

    def write(self, documents: Iterable[Document], workers: int) -> Manifest:
        waiting = deque[list[Document]]()

        def texts() -> Iterator[list[str]]:
            for batch in _batches(self._kept(iter(documents))):
                waiting.append(batch)
                yield [document.text for document in batch]

        for ids, ends in in_order(_Encode(self.tokenizer, self.dtype), texts(), workers):
            batch = waiting.popleft()
            for document, row in zip(batch, np.split(ids, ends[:-1]), strict=True):
                self._add(document, row)
            self.told(batch, len(ids))
        if self.pending:
            self._flush()
        return self._manifest()

    def _kept(self, documents: Iterator[Document]) -> Iterator[Document]:
        """Take over the shards that an earlier writing finished of the same texts; the documents behind them."""
        for shard in self._finished():
            texts, seen = _Texts(), list[Document]()
            for document in itertools.islice(documents, shard.documents):
                texts.add(document.text)
                seen.append(document)
            if (texts.documents, texts.digest.hexdigest()) != (shard.documents, shard.texts_sha256):
                return itertools.chain(seen, documents)
            self.shards.append(shard)
            self.told(seen, 0)
        return documents

    def _finished(self) -> Iterator[Shard]:
        """The shards of an earlier writing of the same kind, as far as their files are whole."""
        path = self.folder / MANIFEST
        try:
            before = from_json(Manifest, path.read_text(encoding="utf-8"), str(path))
        except (OSError, InputError):
            return
        if (before.tokenizer, before.dtype, before.shard_tokens) != (
            self.tokenizer.fingerprint,
            self.dtype,
            self.shard_tokens,
        ):
            return
        for shard in before.shards:
            try:
                check_shard(self.folder, shard, stored(self.dtype), "contents")
            except InputError:
                return
            yield shard

    def _add(self, document: Document, ids: np.ndarray) -> None:
        self.texts.add(document.text)
        self.pending.append(ids)
        self.pending_tokens += len(ids)
        if self.pending_tokens >= self.shard_tokens:
            self._flush()

    def _flush(self) -> None:
        offsets = np.cumsum([0, *map(len, self.pending)])
        name = f"{len(self.shards):05d}"
        tokens = np.concatenate(self.pending).astype(stored(self.dtype))
        shard = Shard(
            name=name,
            documents=len(self.pending),
            tokens=len(tokens),
            tokens_sha256=_write(self.folder / f"{name}.tokens", tokens.tobytes()),
            offsets_sha256=_write(self.folder / f"{name}.offsets", offsets.astype("<u8").tobytes()),
            empty=sum(1 for ids in self.pending if not len(ids)),
            characters=self.texts.characters,
            texts_sha256=self.texts.digest.hexdigest(),
        )
        self.shards.append(shard)
        write_text(self.folder / MANIFEST, to_json(self._manifest()))  # from here on, a kill does not lose it
        self._clear()

    def _clear(self) -> None:
        self.pending: list[np.ndarray] = []
        self.pending_tokens = 0
        self.texts = _Texts()

    def _manifest(self) -> Manifest:
        return Manifest(
            dtype=self.dtype,
            tokenizer=self.tokenizer.fingerprint,
            documents=sum(shard.documents for shard in self.shards),
            empty=sum(shard.empty or 0 for shard in self.shards),
            tokens=sum(shard.tokens for shard in self.shards),
            characters=sum(shard.characters or 0 for shard in self.shards),
            shard_tokens=self.shard_tokens,
            shards=tuple(self.shards),
        )


@dataclass(frozen=True, eq=False)
class _Encode:
    """What a worker runs: texts in, all their ids out, and where each text's end."""

    tokenizer: Tokenizer
    dtype: Literal["uint16", "uint32"]

    def __call__(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = self.tokenizer.encode(texts, specials=False)
        return np.concatenate(rows).astype(self.dtype), np.cumsum([len(row) for row in rows])


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text) + 1  # empty texts count too
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _write(path: Path, content: bytes) -> str:
    """Write a file, on the disk when this returns; its sha256."""
    path.write_bytes(content)
    sync(path)
    return hashlib.sha256(content).hexdigest()


def _finish(partial: Path, manifest: Manifest) -> None:
    """Leave in the folder what belongs to it, on the disk."""
    write_text(partial / MANIFEST, to_json(manifest))  # an earlier text may have had more shards
    names = {f"{shard.name}.{kind}" for shard in manifest.shards for kind in ("tokens", "offsets")}
    for path in partial.iterdir():
        if path.is_file() and path.name not in {*names, MANIFEST}:
            path.unlink()  # of a longer text that was begun before
    sync(partial)
