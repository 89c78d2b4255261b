"""An index: a folder with passages, their vectors and BM25 beside them, to be searched with the model that made it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from bothways.errors import InputError
from bothways.retrieval.chunking import Chunking
from bothways.retrieval.embedder import Embedder
from bothways.retrieval.fusion import reciprocal_rank_fusion
from bothways.retrieval.lexical import Lexical
from bothways.retrieval.settings import IndexSettings, check_model, lexical_folder, read_settings, vectors_folder
from bothways.retrieval.store import Hit, Store
from bothways.retrieval.update import IDS, IndexReport, Progress, update

Method = Literal["dense", "bm25", "hybrid"]
# How deep each of the two rankings goes into a hybrid one.
_DEPTH = 100


class Index:
    """An index that is open for search. `Index.open` opens one.

    After an update, open it again.
    """

    def __init__(self, folder: Path, settings: IndexSettings, embedder: Embedder) -> None:
        self.folder, self.settings, self._embedder = folder, settings, embedder
        self._store = Store(vectors_folder(folder), settings.size)

    @staticmethod
    def create_or_update(
        folder: str | Path,
        documents: Iterable[tuple[str, str]],
        embedder: Embedder,
        chunking: Chunking | None = None,
        batch: int = 1024,
        progress: Progress | None = None,
    ) -> IndexReport:
        """Make the index in a folder hold these documents and no others.

        Documents held already, with the same text and chunking, are not embedded again. An interrupted
        update is gone on with by starting it again.

        Args:
            documents: name and text of each.
            batch: passages embedded and written at a time; a document is never split between two writes.
            progress: called after each batch with the documents read and passages embedded so far.

        Raises:
            InputError: two documents of one name, none at all, a folder of another model or of something
                else, chunking that does not suit the model, a full disk.
            MissingExtraError: the extra `index` is not installed.
        """
        return update(Path(folder), documents, embedder, chunking or Chunking(), batch, progress)

    @classmethod
    def open(cls, folder: str | Path, embedder: Embedder) -> Index:
        """Open an index with the model that made it.

        Raises:
            InputError: no index there, one of another model, or one whose last update was interrupted.
            MissingExtraError: the extra `index` is not installed.
        """
        folder = Path(folder)
        settings = read_settings(folder)
        if settings is None:
            raise InputError(f"{folder}: there is no index here; make one with `bothways index`")
        check_model(folder, settings, embedder, embedder.fingerprint)
        if not settings.complete:
            raise InputError(f"{folder}: its last update did not end; index again, and it goes on where it stopped")
        return cls(folder, settings, embedder)

    def search(self, query: str, k: int = 10, method: Method = "dense") -> list[Hit]:
        """Up to `k` passages, best first.

        Scores are cosines (dense), BM25 scores, or sums of reciprocal ranks (hybrid): comparable within
        one method only. BM25 finds nothing where no word of the query occurs.

        Raises:
            InputError: an empty query, or k below 1.
        """
        if not query.strip():
            raise InputError("the query is empty; type what to look for")
        if k < 1:
            raise InputError(f"k={k}: ask for at least one result")
        return self._store.hits(self._ranked(query, k, method))

    def _ranked(self, query: str, k: int, method: Method) -> list[tuple[int, float]]:
        match method:
            case "dense":
                return self._store.search(self._embedder.encode_query([query])[0], k)
            case "bm25":
                scorer, ids = self._lexical
                return [(int(ids[row]), score) for row, score in scorer.search(query, k)]
            case "hybrid":
                both = [self._ranked(query, max(k, _DEPTH), one) for one in ("dense", "bm25")]
                return reciprocal_rank_fusion([[number for number, _ in ranked] for ranked in both])[:k]
            case _:
                raise InputError(f"method '{method}': there are dense, bm25 and hybrid")

    @cached_property
    def _lexical(self) -> tuple[Lexical, np.ndarray]:
        folder = lexical_folder(self.folder)
        scorer = Lexical.load(folder)
        ids = np.load(folder / IDS, allow_pickle=False)
        if len(ids) != scorer.passages:
            raise InputError(f"{folder}: damaged ({len(ids)} ids, {scorer.passages} passages); delete the folder and index again")
        return scorer, ids
