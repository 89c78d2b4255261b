"""What a curation leaves: shards of documents as JSON lines or Parquet."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from bothways.config import config
from bothways.data.curation.store import Item, batched, whole

_BLOCK = 1 << 20
_SUFFIXES = {"gzip": ".jsonl.gz", "zstd": ".jsonl.zst", "none": ".jsonl"}


@config
class JsonlShards:
    """A JSON object a line, with `text` and `where` (the file and line it comes from)."""

    type: Literal["jsonl"] = "jsonl"
    compression: Literal["gzip", "zstd", "none"] = "gzip"


@config
class ParquetShards:
    """Parquet files with the columns `text` and `where`, compressed by zstd."""

    type: Literal["parquet"] = "parquet"


Output = Annotated[JsonlShards | ParquetShards, pydantic.Field(discriminator="type")]


@config
class ShardFile:
    """One file of the output."""

    name: str
    documents: int
    characters: int
    bytes: int
    sha256: str


def suffix(output: JsonlShards | ParquetShards) -> str:
    return ".parquet" if isinstance(output, ParquetShards) else _SUFFIXES[output.compression]


def write_shard(output: JsonlShards | ParquetShards, place: Path, items: Iterable[Item]) -> ShardFile | None:
    """Write a shard; None, and no file, where there are no documents.

    Raises:
        InputError: it cannot be written.
    """
    documents = characters = 0

    def counted() -> Iterator[Item]:
        nonlocal documents, characters
        for item in items:
            documents += 1
            characters += len(item.text)
            yield item

    place = place.with_name(place.name + suffix(output))
    stream = counted()
    first = next(stream, None)
    if first is None:
        place.unlink(missing_ok=True)
        return None
    with whole(place) as temporary:
        write = _write_parquet if isinstance(output, ParquetShards) else _jsonl_writer(output)
        write(temporary, _with(first, stream))
    size = place.stat().st_size
    return ShardFile(name=place.name, documents=documents, characters=characters, bytes=size, sha256=sha256(place))


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _with(first: Item, rest: Iterable[Item]) -> Iterator[Item]:
    yield first
    yield from rest


def _jsonl_writer(output: JsonlShards) -> Any:
    def write(path: Path, items: Iterable[Item]) -> None:
        with _compressed(path, output.compression) as file:
            for item in items:
                line = json.dumps({"text": item.text, "where": item.where}, ensure_ascii=False)
                file.write(line.encode() + b"\n")

    return write


@contextmanager
def _compressed(path: Path, compression: Literal["gzip", "zstd", "none"]) -> Iterator[Any]:
    if compression == "zstd":
        import pyarrow as pa

        with pa.OSFile(str(path), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as file:
            yield file
        return
    with path.open("wb") as raw:
        if compression == "none":
            yield raw
            return
        # neither the name nor the time goes into the file: the same documents give the same bytes
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
            yield file


def _write_parquet(path: Path, items: Iterable[Item]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("text", pa.large_string()), ("where", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batched(items):
            writer.write_table(pa.table([[one.text for one in batch], [one.where for one in batch]], schema=schema))
