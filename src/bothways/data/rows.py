"""Tables row by row: JSON lines, CSV and TSV, Parquet, each with strict checks.

Every reader yields (where, values): `where` is `file:line` (Parquet: `file:row`), from 1, and the values
are those of the columns asked for, in that order.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from bothways.config import config
from bothways.data.reading import LONGEST, Listing, check_length, find, kind_of, read_lines
from bothways.errors import InputError

Paths = Annotated[tuple[str, ...], pydantic.Field(min_length=1)]
Row = tuple[str, tuple[Any, ...]]

TABLE_KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}


@config
class JsonLines:
    """Files with a JSON object on each line, gzipped or not."""

    type: Literal["jsonl"] = "jsonl"
    paths: Paths
    encoding: str = "utf-8"


@config
class Csv:
    """Files of delimited values.

    Attributes:
        quotes: `double`: a value in double quotes may hold delimiters and line ends, as in CSV. `none`: a
            quote is a character like any other, as in most TSV.
        columns: the names of the columns, for files whose first line is not a header.
    """

    type: Literal["csv"] = "csv"
    paths: Paths
    delimiter: Annotated[str, pydantic.Field(min_length=1, max_length=1)] = ","
    quotes: Literal["double", "none"] = "double"
    columns: tuple[str, ...] | None = None
    encoding: str = "utf-8"


@config
class Parquet:
    """Parquet files, read one row group at a time."""

    type: Literal["parquet"] = "parquet"
    paths: Paths


Table = Annotated[JsonLines | Csv | Parquet, pydantic.Field(discriminator="type")]


def open_table(path: Path) -> JsonLines | Csv | Parquet:
    """The table at a path (a file, or a folder of its parts), told by suffix.

    Raises:
        InputError: nothing there, or no table by its suffix.
    """
    return table_of(kind_of(path, TABLE_KINDS), (str(path),))


def table_of(kind: str, paths: tuple[str, ...]) -> JsonLines | Csv | Parquet:
    """The table of one of `TABLE_KINDS`, as such files usually are."""
    match kind:
        case "jsonl":
            return JsonLines(paths=paths)
        case "parquet":
            return Parquet(paths=paths)
        case "tsv":
            return Csv(paths=paths, delimiter="\t", quotes="none")
        case _:
            return Csv(paths=paths)


def list_table(table: JsonLines | Csv | Parquet) -> Listing:
    """The files of a table. Raises InputError where there are none."""
    kinds = {"jsonl": ("jsonl",), "csv": ("csv", "tsv"), "parquet": ("parquet",)}[table.type]
    return find(table.paths, [suffix for suffix, kind in TABLE_KINDS.items() if kind in kinds])


def read_rows(table: JsonLines | Csv | Parquet, wanted: Sequence[str]) -> Iterator[Row]:
    """The rows of all files of a table.

    Raises:
        InputError: a missing column (naming those there are), a line that cannot be parsed, a file that cannot be read.
    """
    for path in list_table(table).files:
        if isinstance(table, JsonLines):
            yield from _json_rows(path, table, wanted)
        elif isinstance(table, Csv):
            yield from _csv_rows(path, table, wanted)
        else:
            yield from _parquet_rows(path, wanted)


def _json_rows(path: Path, table: JsonLines, wanted: Sequence[str]) -> Iterator[Row]:
    for number, line in read_lines(path, table.encoding):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where}: not valid JSON: {error}") from None
        except RecursionError:
            raise InputError(f"{where}: not usable JSON: nested too deeply") from None
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected a JSON object, found {type(row).__name__}")
        values = tuple(row[name] for name in _present(wanted, list(row), where))
        for name, value in zip(wanted, values, strict=True):
            _check_characters(value, f"{where}: column '{name}'")
        yield where, values


def _csv_rows(path: Path, table: Csv, wanted: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(LONGEST)  # of the process; the limit `read_lines` keeps
    quoting = csv.QUOTE_MINIMAL if table.quotes == "double" else csv.QUOTE_NONE
    lines = (line for _, line in read_lines(path, table.encoding, newline=""))
    reader = csv.reader(lines, delimiter=table.delimiter, quoting=quoting, strict=True)
    numbered = _parsed(reader, path)
    names = table.columns
    if names is None:
        _, names = next(numbered, (0, ()))
    places = [names.index(name) for name in _present(wanted, names, str(path))]
    for number, row in numbered:
        if len(row) != len(names):
            found = f"{len(row)} values where there are {len(names)} columns"
            raise InputError(f"{path}:{number}: {found}; check the quotes and the delimiter")
        yield f"{path}:{number}", tuple(row[place] for place in places)


def _parsed(reader: Any, path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    """Rows that are not blank, with the number of the line each begins on."""
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{path}:{number}: {error}; check the quotes and the delimiter") from None
        if row:
            yield number, row


def _parquet_rows(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    numbers = itertools.count(1)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = _present(wanted, file.schema_arrow.names, str(path))
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(batch_size=1024, row_groups=[group], columns=names):
                    columns = [batch.column(name).to_pylist() for name in names]
                    for values in zip(*columns, strict=True):
                        where = f"{path}:{next(numbers)}"
                        for name, value in zip(names, values, strict=True):
                            if isinstance(value, str):
                                check_length(len(value), f"{where}: column '{name}'", "break it up")
                        yield where, values
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None


def _check_characters(value: Any, where: str) -> None:
    """Raise InputError for text with half of a surrogate pair, which JSON's escapes allow: it stands for no character."""
    try:
        if isinstance(value, str):
            value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise InputError(
            f"{where}: character {error.start} is {half}, a lone surrogate (half a character); write it whole or remove it"
        ) from None


def _present(wanted: Sequence[str], names: Sequence[str], where: str) -> list[str]:
    missing = [name for name in wanted if name not in names]
    if missing:
        there = ", ".join(str(name) for name in names) or "none"
        raise InputError(f"{where}: no column '{missing[0]}'; the columns there are: {there}")
    return list(wanted)
