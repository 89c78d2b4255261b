"""Bringing an index folder in line with a collection of documents, embedding only what is new or changed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bothways.errors import InputError
from bothways.files import reported
from bothways.retrieval.chunking import Chunk, Chunker, Chunking
from bothways.retrieval.embedder import Embedder, tokenizer_of
from bothways.retrieval.lexical import Lexical
from bothways.retrieval.settings import IndexSettings, check_model, lexical_folder, read_settings, vectors_folder, write_settings
from bothways.retrieval.store import Store

IDS = "ids.npy"
Progress = Callable[[int, int], None]
"""Called after each batch with the documents read and the passages embedded so far."""


@dataclass(frozen=True)
class IndexReport:
    """What an update did, and what the index holds now.

    Attributes:
        added, changed, unchanged: documents that were given, by what became of them.
        empty: documents that were given without any text; they are not in the index.
        removed: documents that were in the index and are not any more.
        documents, chunked, passages: held now; `chunked` documents are in more than one passage.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    empty: int = 0
    removed: int = 0
    documents: int = 0
    chunked: int = 0
    passages: int = 0

    def __str__(self) -> str:
        done = f"{self.added:,} added, {self.changed:,} changed, {self.unchanged:,} unchanged, {self.removed:,} removed"
        empty = f", {self.empty:,} without text left out" if self.empty else ""
        return f"{done}{empty}; {self.documents:,} documents in {self.passages:,} passages ({self.chunked:,} cut into several)"


def update(
    folder: Path,
    documents: Iterable[tuple[str, str]],
    embedder: Embedder,
    chunking: Chunking,
    batch: int,
    progress: Progress | None,
) -> IndexReport:
    """See `Index.create_or_update`."""
    settings = read_settings(folder)
    fingerprint = embedder.fingerprint
    if settings is not None:
        check_model(folder, settings, embedder, fingerprint)
    run = _Update(folder, embedder, fingerprint, _chunker(embedder, chunking), settings, progress)
    for key, text in checked(documents):
        run.take(key, text)
        if len(run.waiting) >= batch:
            run.write()
    return run.finish()


def checked(documents: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The same documents, where each has a name of its own and all is valid Unicode.

    Raises:
        InputError: the first that cannot be used.
    """
    seen: set[str] = set()
    for key, text in documents:
        if key in seen:
            raise InputError(f"{key}: two documents have this name; give each its own")
        seen.add(key)
        try:
            (key + text).encode()
        except UnicodeEncodeError:
            raise InputError(f"{key!a}: not valid Unicode text (a lone surrogate); read it with its true encoding") from None
        yield key, text


def _chunker(embedder: Embedder, chunking: Chunking) -> Chunker:
    most = embedder.max_seq_length
    limit = most if chunking.max_tokens is None else chunking.max_tokens
    if limit > most:
        raise InputError(f"max_tokens={limit}: {embedder.name or 'the model'} reads {most} tokens at most; lower it")
    return Chunker(tokenizer_of(embedder), limit, chunking.overlap, embedder.document_prompt)


class _Update:
    """One update under way. A kill between any two steps leaves a folder that the next update finishes."""

    def __init__(
        self,
        folder: Path,
        embedder: Embedder,
        fingerprint: str,
        chunker: Chunker,
        settings: IndexSettings | None,
        progress: Progress | None,
    ) -> None:
        self.folder, self.embedder, self.fingerprint, self.chunker = folder, embedder, fingerprint, chunker
        self.settings = settings
        self.store = None if settings is None else Store(vectors_folder(folder), settings.size)
        self.held = {} if self.store is None else self.store.hashes()
        self.waiting: list[Chunk] = []
        self._waiting_hashes: dict[str, str] = {}
        self._seen = 0
        self._kept: set[str] = set()
        self._doubled: dict[str, str] = {}
        self._embedded = 0
        self._progress = progress
        self._report = IndexReport()

    def take(self, key: str, text: str) -> None:
        """Sort a document into new, changed, unchanged or empty; cut it where it has to be embedded."""
        self._seen += 1
        digest = self._hash(key, text)
        held = self.held.get(key, set())
        if digest in held:
            self._kept.add(key)
            if len(held) > 1:
                self._doubled[key] = digest
            self._count("unchanged")
        elif chunks := self.chunker.cut(key, text):
            self._kept.add(key)
            self.waiting += chunks
            self._waiting_hashes[key] = digest
            self._count("changed" if held else "added")
        else:
            self._count("empty")

    def write(self) -> None:
        """Embed and write the documents that wait."""
        if not self.waiting:
            return
        vectors = self.embedder.encode_document([chunk.text for chunk in self.waiting])
        with reported(str(self.folder), "the documents written so far are kept"):
            store = self._begin(vectors.shape[1])
            store.add(self.waiting, self._waiting_hashes, vectors)
            store.keep_only({key: digest for key, digest in self._waiting_hashes.items() if key in self.held})
        self._embedded += len(self.waiting)
        self.waiting, self._waiting_hashes = [], {}
        if self._progress:
            self._progress(self._seen, self._embedded)

    def finish(self) -> IndexReport:
        """Write what waits, remove what is gone, rebuild BM25."""
        if not self._seen:
            raise InputError("there are no documents to index; the index is left as it is")
        if not self._kept:
            raise InputError(f"none of the {self._seen} documents has any text; the index is left as it is")
        self.write()
        assert self.settings is not None  # something was kept: held before, or written now
        gone = sorted(self.held.keys() - self._kept)
        self._count("removed", len(gone))
        with reported(str(self.folder), "the documents written so far are kept"):
            store = self._begin(self.settings.size) if gone or self._doubled or not self.settings.complete else None
            if store is not None:
                store.remove(gone)
                store.keep_only(self._doubled)
                self._complete(store)
        held = self.settings
        return replace(self._report, documents=held.documents, chunked=held.chunked, passages=held.passages)

    def _begin(self, size: int) -> Store:
        """Mark the folder as being worked on, before the first change to it."""
        settings = IndexSettings(
            model=self.embedder.name,
            fingerprint=self.fingerprint,
            size=size,
            max_tokens=self.chunker.limit,
            overlap=self.chunker.overlap,
        )
        if self.settings != settings:
            self.settings = settings
            write_settings(self.folder, settings)
        if self.store is None:
            self.store = Store(vectors_folder(self.folder), size)
        return self.store

    def _complete(self, store: Store) -> None:
        """Rebuild what is derived from all passages, then say that the folder is whole."""
        assert self.settings is not None
        store.compact()
        _write_lexical(self.folder, store)
        counts = store.counts()
        self.settings = replace(
            self.settings,
            documents=len(counts),
            chunked=sum(count > 1 for count in counts.values()),
            passages=sum(counts.values()),
            complete=True,
        )
        write_settings(self.folder, self.settings)

    def _count(self, name: str, more: int = 1) -> None:
        self._report = replace(self._report, **{name: getattr(self._report, name) + more})

    def _hash(self, key: str, text: str) -> str:
        """Of the document and of all that decides its passages; the name is in it so that no two documents share one."""
        recipe = (key, self.chunker.limit, self.chunker.overlap, self.chunker.prompt, text)
        return hashlib.sha256("\0".join(map(str, recipe)).encode()).hexdigest()


def _write_lexical(folder: Path, store: Store) -> None:
    ids, texts = store.texts()
    final = lexical_folder(folder)
    fresh = final.with_name(f".{final.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    Lexical.build(texts).save(fresh)
    np.save(fresh / IDS, np.array(ids, dtype=np.int64))
    shutil.rmtree(final, ignore_errors=True)
    fresh.rename(final)
