"""Passages and their vectors in LanceDB, in-process.

Documents are written whole, in one commit each batch, so a kill leaves a document in the store or out of it,
never in part. A document whose text changed is first written anew, then its old passages are removed.
Search is exact: there is no approximate index.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bothways.errors import InputError, MissingExtraError
from bothways.files import reported
from bothways.retrieval.chunking import Chunk

_TABLE = "passages"
_FIELDS = ["id", "document", "number", "start", "end", "text"]
# Names in one SQL condition.
_MANY = 500
# Old versions are what a search that began before an update still reads.
_KEEP = timedelta(hours=1)


@dataclass(frozen=True)
class Hit:
    """A passage that was found: `text` is the characters `start` to `end` of chunk `number` of `document`."""

    score: float
    document: str
    number: int
    start: int
    end: int
    text: str


class Store:
    """The table of passages in a folder, each with a vector of `size` numbers; made if it is not there."""

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self._schema = pa.schema(
            [
                ("id", pa.int64()),
                ("document", pa.string()),
                ("number", pa.int32()),
                ("start", pa.int64()),
                ("end", pa.int64()),
                ("text", pa.string()),
                ("hash", pa.string()),
                ("vector", pa.list_(pa.float32(), size)),
            ]
        )
        with reported(folder):
            self._table = _lancedb().connect(str(folder)).create_table(_TABLE, schema=self._schema, exist_ok=True)
        held = self._table.schema.field("vector").type.list_size
        if held != size:
            raise InputError(f"{folder}: its vectors have {held} numbers, the model's {size}; index into a new folder")
        self._next = max(self._select(["id"])["id"].to_pylist(), default=-1) + 1

    @property
    def passages(self) -> int:
        return self._table.count_rows()

    def hashes(self) -> dict[str, set[str]]:
        """The hashes under which each document is held; more than one where a replacement was interrupted."""
        rows = self._select(["document", "hash"])
        held: dict[str, set[str]] = {}
        for document, digest in zip(rows["document"].to_pylist(), rows["hash"].to_pylist(), strict=True):
            held.setdefault(document, set()).add(digest)
        return held

    def counts(self) -> dict[str, int]:
        """The passages of each document."""
        rows = self._select(["document"])["document"].value_counts().to_pylist()
        return {row["values"]: row["counts"] for row in rows}

    def add(self, chunks: Sequence[Chunk], hashes: Mapping[str, str], vectors: np.ndarray) -> None:
        """Write the passages of whole documents, in one commit.

        Raises:
            InputError: a vector that has no direction, which no search would ever find.
        """
        lengths = np.linalg.norm(vectors, axis=1)
        lost = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if len(lost):
            raise InputError(f"{chunks[lost[0]].document}: the model gives it a vector that is zero or not finite")
        first, self._next = self._next, self._next + len(chunks)
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
        columns = {
            "id": range(first, first + len(chunks)),
            "document": [chunk.document for chunk in chunks],
            "number": [chunk.number for chunk in chunks],
            "start": [chunk.start for chunk in chunks],
            "end": [chunk.end for chunk in chunks],
            "text": [chunk.text for chunk in chunks],
            "hash": [hashes[chunk.document] for chunk in chunks],
            "vector": pa.FixedSizeListArray.from_arrays(flat, self.size),
        }
        self._table.add(pa.table(columns, schema=self._schema))

    def keep_only(self, hashes: Mapping[str, str]) -> None:
        """Remove every passage of these documents that is not of this hash. Hashes of two documents never agree."""
        for part in _parts(list(hashes)):
            self._delete(f"document IN {_list(part)} AND hash NOT IN {_list([hashes[name] for name in part])}")

    def remove(self, documents: Sequence[str]) -> None:
        for part in _parts(documents):
            self._delete(f"document IN {_list(part)}")

    def compact(self) -> None:
        """Merge small files, and drop the versions that no search reads any more."""
        self._table.optimize(cleanup_older_than=_KEEP)

    def texts(self) -> tuple[list[int], list[str]]:
        """Ids and texts of all passages, by document and number."""
        rows = self._select(["id", "document", "number", "text"]).sort_by([("document", "ascending"), ("number", "ascending")])
        return rows["id"].to_pylist(), rows["text"].to_pylist()

    def search(self, vector: np.ndarray, k: int) -> list[tuple[int, float]]:
        """Up to `k` passages of largest cosine with a vector [size], best first: (id, cosine)."""
        # Without a stated distance LanceDB would use L2.
        found = self._table.search(vector).distance_type("cosine").select(["id", "_distance"]).limit(k).to_list()
        pairs = [(row["id"], 1 - row["_distance"]) for row in found]
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))

    def hits(self, ranked: Sequence[tuple[int, float]]) -> list[Hit]:
        """The passages of these ids with their scores, in this order."""
        found: dict[int, dict[str, Any]] = {}
        for part in _parts(ranked):
            rows = self._select(_FIELDS, f"id IN ({', '.join(str(number) for number, _ in part)})")
            found.update((row["id"], row) for row in rows.to_pylist())
        return [Hit(score, *(found[number][field] for field in _FIELDS[1:])) for number, score in ranked]

    def _delete(self, where: str) -> None:
        self._table.delete(where)

    def _select(self, columns: list[str], where: str | None = None) -> pa.Table:
        query = self._table.search().select(columns)
        return (query.where(where) if where else query).to_arrow()


def _parts(items: Sequence[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while part := list(islice(iterator, _MANY)):
        yield part


def _list(values: Sequence[str]) -> str:
    """SQL's list of string literals."""
    return "(" + ", ".join("'" + value.replace("'", "''") + "'" for value in values) + ")"


def _lancedb() -> Any:
    os.environ.setdefault("RUST_LOG", "error")  # its engine writes warnings about ordinary events
    try:
        import lancedb
    except ImportError:
        raise MissingExtraError("the index", "index") from None
    return lancedb
