"""What the stages of a curation leave for each other on disk: documents, signatures, and which duplicates go.

Files are written under a name of their own and renamed when whole: after a kill, a worker that lives on and the one that
does its work again may write the same file, with the same bytes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, UInt32, UInt64

from bothways.files import reported, sync

if TYPE_CHECKING:
    import pyarrow

# A batch of documents on disk, and so in memory: so many, or so many characters
_BATCH_DOCUMENTS = 1024
_BATCH_CHARACTERS = 1 << 22
_KEPT = "the same command goes on from what is done"


@dataclass(frozen=True, slots=True)
class Item:
    """A document on its way: its text, where it was found, and its place in the order of all sources."""

    text: str
    where: str
    order: int


@contextmanager
def whole(place: Path) -> Iterator[Path]:
    """Yields a name that no other process uses; the file written there takes the place of `place` when the block ends well.

    Raises:
        InputError: it cannot be written.
    """
    temporary = place.with_name(f".partial.{uuid.uuid4().hex}.{place.name}")
    with reported(place, _KEPT):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            sync(temporary)
            temporary.replace(place)
            sync(place.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(place: Path, text: str) -> None:
    """Write a file whole. Raises InputError where it cannot be written."""
    with whole(place) as temporary:
        temporary.write_text(text, encoding="utf-8")


def batched(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Lists of items that fit in memory."""
    gathered: list[Item] = []
    characters = 0
    for item in items:
        gathered.append(item)
        characters += len(item.text)
        if len(gathered) >= _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield gathered
            gathered, characters = [], 0
    if gathered:
        yield gathered


def write_items(place: Path, items: Iterable[Item]) -> None:
    """Documents as Arrow record batches; read back as they come by `read_items`."""
    import pyarrow as pa

    schema = pa.schema([("text", pa.large_string()), ("where", pa.string()), ("order", pa.uint64())])
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with whole(place) as temporary, pa.ipc.new_stream(str(temporary), schema, options=options) as writer:
        for batch in batched(items):
            columns = zip(*((one.text, one.where, one.order) for one in batch), strict=True)
            arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def read_items(place: Path) -> Iterator[Item]:
    """The documents that `write_items` wrote."""
    import pyarrow as pa

    with pa.OSFile(str(place), "rb") as file, pa.ipc.open_stream(file) as batches:
        for batch in batches:
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield Item(*row)


class Signatures:
    """Collects the signatures of a part's documents, in their order; documents without one have a row of zeros."""

    def __init__(self, hashes: int, bands: int) -> None:
        self.hashes, self.bands = hashes, bands
        self.rows: list[UInt32[np.ndarray, " hashes"]] = []
        self.orders: list[int] = []
        self.wheres: list[str] = []
        self.signed: list[bool] = []

    def add(self, item: Item, signature: UInt32[np.ndarray, " hashes"] | None) -> None:
        self.rows.append(np.zeros(self.hashes, np.uint32) if signature is None else signature)
        self.orders.append(item.order)
        self.wheres.append(item.where)
        self.signed.append(signature is not None)

    def write(self, place: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from bothways.data.curation.duplicates import band_keys

        rows = np.stack(self.rows) if self.rows else np.zeros((0, self.hashes), np.uint32)
        keys = band_keys(rows, self.bands)
        columns: dict[str, pyarrow.Array] = {
            "order": pa.array(self.orders, pa.uint64()),
            "where": pa.array(self.wheres, pa.string()),
            "signed": pa.array(self.signed, pa.bool_()),
            "signature": pa.array([row.astype("<u4").tobytes() for row in rows], pa.binary(4 * self.hashes)),
        }
        columns |= {f"key{band}": pa.array(keys[:, band]) for band in range(self.bands)}
        with whole(place) as temporary:
            pq.write_table(pa.table(columns), temporary, compression="none")


@dataclass(frozen=True, eq=False)
class Band:
    """One band of all documents: keys, places in the order of the sources, and rows counted through all parts."""

    keys: UInt64[np.ndarray, " documents"]
    orders: UInt64[np.ndarray, " documents"]
    rows: Int[np.ndarray, " documents"]


def read_band(files: Sequence[Path], band: int) -> Band:
    """The documents with a signature, of all parts."""
    import pyarrow.parquet as pq

    columns: list[list[np.ndarray]] = [[], [], []]
    start = 0
    for file in files:
        table = pq.read_table(file, columns=[f"key{band}", "order", "signed"])
        signed = table["signed"].to_numpy()
        columns[0].append(table[f"key{band}"].to_numpy()[signed])
        columns[1].append(table["order"].to_numpy()[signed])
        columns[2].append(start + np.flatnonzero(signed))
        start += table.num_rows
    keys, orders, rows = (np.concatenate(parts) for parts in columns)
    return Band(keys.astype(np.uint64), orders.astype(np.uint64), rows.astype(np.int64))


@dataclass(frozen=True, eq=False)
class Signed:
    """Some documents: their signatures, places in the order of the sources, and where they were found."""

    signatures: UInt32[np.ndarray, "documents hashes"]
    orders: UInt64[np.ndarray, " documents"]
    wheres: tuple[str, ...]


def read_signed(files: Sequence[Path], rows: Int[np.ndarray, " wanted"]) -> tuple[Signed, Int[np.ndarray, " boundaries"]]:
    """The documents of these rows (ascending), and where each part's rows begin."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    starts, signatures, orders, wheres = [0], [], [], []
    for file in files:
        with pq.ParquetFile(file) as opened:
            count = opened.metadata.num_rows
        low, high = np.searchsorted(rows, [starts[-1], starts[-1] + count])
        if high > low:
            table = pq.read_table(file, columns=["order", "where", "signature"])
            table = table.take(pa.array(rows[low:high] - starts[-1]))
            signatures += [np.frombuffer(one, "<u4") for one in table["signature"].to_pylist()]
            orders.append(table["order"].to_numpy())
            wheres += table["where"].to_pylist()
        starts.append(starts[-1] + count)
    found = Signed(
        np.stack(signatures).astype(np.uint32) if signatures else np.zeros((0, 1), np.uint32),
        np.concatenate(orders).astype(np.uint64) if orders else np.zeros(0, np.uint64),
        tuple(wheres),
    )
    return found, np.array(starts)
