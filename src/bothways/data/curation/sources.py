"""The sources of a curation, cut into parts that processes can work on, a function of the files alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pydantic

from bothways.data.curation.pages import HTML_SUFFIXES, WARC_SUFFIXES, Html, Page, Warc, read_pages
from bothways.data.reading import Listing, files_by_kind, find, suffix_of
from bothways.data.rows import TABLE_KINDS, table_of
from bothways.data.source import TEXT_SUFFIXES, Column, Document, Split, TextFiles, list_source, read_documents

CuratedSource = Annotated[TextFiles | Column | Html | Warc, pydantic.Field(discriminator="type")]
# A large file is read by at most so many parts, each of which goes through all of it and takes every n-th document
_STRIDES = 8
# Orders a document by its file, then by its place there; more than 2^36 documents of one file are beyond any file
_FILE_BITS = 36


@dataclass(frozen=True, slots=True)
class Unit:
    """A file, or every `stride`-th document of it, from `offset` on; `file` numbers the files of all sources."""

    source: int
    file: int
    path: str
    stride: int = 1
    offset: int = 0


Part = tuple[Unit, ...]


def list_files(source: TextFiles | Column | Html | Warc) -> Listing:
    """The files a source reads, and those it leaves out. Raises InputError where there are none."""
    if isinstance(source, Html):
        return find(source.paths, HTML_SUFFIXES)
    if isinstance(source, Warc):
        return find(source.paths, WARC_SUFFIXES)
    return list_source(source)


def open_curated(path: Path, column: str = "text", split: Split = "whole") -> tuple[TextFiles | Column | Html | Warc, ...]:
    """The sources at a path, told by suffix: of a folder, one for each kind of file in it, the kind of most bytes first.

    Raises:
        InputError: nothing there, or a suffix that says none of text, table, page and web archive.
    """
    pages = dict.fromkeys(HTML_SUFFIXES, "html") | dict.fromkeys(WARC_SUFFIXES, "warc")
    found = files_by_kind(path, dict.fromkeys(TEXT_SUFFIXES, "text") | TABLE_KINDS | pages)
    sources: list[TextFiles | Column | Html | Warc] = []
    for kind, files in found.items():
        # a table of delimited values takes all such files of a folder, by one delimiter
        paths = tuple(map(str, files)) if kind in ("csv", "tsv") and {"csv", "tsv"} <= set(found) else (str(path),)
        if kind == "html":
            sources.append(Html(paths=paths))
        elif kind == "warc":
            sources.append(Warc(paths=paths))
        elif kind == "text":
            sources.append(TextFiles(paths=paths, split=split))
        else:
            sources.append(Column(table=table_of(kind, paths), column=column, split=split))
    return tuple(sources)


def describe_files(sources: Sequence[TextFiles | Column | Html | Warc]) -> Iterator[str]:
    """A line for each folder: the files that the sources read of it, and those that none of them reads; one for files named."""
    read = {file for source in sources for file in list_files(source).files}
    folders: dict[str, list[Listing]] = {}
    named: set[str] = set()
    for source in sources:
        for path in paths_of(source):
            if Path(path).is_dir():
                folders.setdefault(path, []).append(list_files(dataclasses.replace(source, **_only(source, path))))
            else:
                named.add(path)
    for path, found in folders.items():
        files = tuple(file for one in found for file in one.files)
        left = Counter({suffix: min(one.skipped.get(suffix, 0) for one in found) for suffix in found[0].skipped})
        # files named by themselves, as the tables of a folder that has both CSV and TSV
        left -= Counter(suffix_of(file) for file in read.difference(files) if Path(path) in file.parents)
        yield f"{path}: {Listing(files, dict(left), sum(one.empty for one in found), found[0].hidden)}"
    if named:
        yield f"{', '.join(sorted(named)) if len(named) < 4 else 'named'}: {Listing(tuple(map(Path, named)), {}, 0, 0)}"


def _only(source: TextFiles | Column | Html | Warc, path: str) -> dict[str, Any]:
    """What a source has to be changed in to read this path alone."""
    return {"table": dataclasses.replace(source.table, paths=(path,))} if isinstance(source, Column) else {"paths": (path,)}


def paths_of(source: TextFiles | Column | Html | Warc) -> tuple[str, ...]:
    """The files and folders of a source."""
    return source.table.paths if isinstance(source, Column) else source.paths


def cut(sources: Sequence[TextFiles | Column | Html | Warc], part_bytes: int) -> tuple[Part, ...]:
    """The parts: small files together, large ones in several, about `part_bytes` of their files each.

    Raises:
        InputError: a source without files.
    """
    parts: list[Part] = []
    gathered: list[Unit] = []
    size = 0
    number = 0
    for index, source in enumerate(sources):
        for path in list_files(source).files:
            weight = path.stat().st_size
            if gathered and size + weight > part_bytes:
                parts.append(tuple(gathered))
                gathered, size = [], 0
            strides = min(_STRIDES, -(-weight // part_bytes))
            if strides > 1:
                parts += [(Unit(index, number, str(path), strides, offset),) for offset in range(strides)]
            else:
                gathered.append(Unit(index, number, str(path)))
                size += weight
            number += 1
    return (*parts, tuple(gathered)) if gathered else tuple(parts)


def order_of(unit: Unit, number: int) -> int:
    """The place, in the order of all sources, of the `number`-th document of a unit's file."""
    return unit.file << _FILE_BITS | number


def read_unit(source: TextFiles | Column | Html | Warc, unit: Unit) -> Iterator[tuple[int, Document | Page]]:
    """The documents of a unit, each with its place in the order of all sources.

    Raises:
        InputError: a file, line or row that cannot be read as text; the message names it.
    """
    for number, document in enumerate(_read_file(source, Path(unit.path))):
        if number % unit.stride == unit.offset:
            yield order_of(unit, number), document


def _read_file(source: TextFiles | Column | Html | Warc, path: Path) -> Iterator[Document | Page]:
    if isinstance(source, Html | Warc):
        return read_pages(source, path)
    return read_documents(dataclasses.replace(source, **_only(source, str(path))))
