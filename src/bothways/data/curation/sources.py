"""The sources of a curation, cut into parts that processes can work on, a function of the files alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pydantic

from bothways.data.curation.pages import HTML_SUFFIXES, WARC_SUFFIXES, Html, Page, Warc, read_pages
from bothways.data.reading import Listing, find, kind_of
from bothways.data.rows import TABLE_KINDS
from bothways.data.source import TEXT_SUFFIXES, Column, Document, Split, TextFiles, list_source, open_source, read_documents

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


def open_curated(path: Path, column: str = "text", split: Split = "whole") -> TextFiles | Column | Html | Warc:
    """The source at a path, told by suffix; a folder is what most of its bytes are. Raises InputError for neither."""
    pages = dict.fromkeys(HTML_SUFFIXES, "html") | dict.fromkeys(WARC_SUFFIXES, "warc")
    kind = kind_of(path, dict.fromkeys(TEXT_SUFFIXES, "text") | TABLE_KINDS | pages)
    if kind == "html":
        return Html(paths=(str(path),))
    return Warc(paths=(str(path),)) if kind == "warc" else open_source(path, column, split)


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


def read_unit(source: TextFiles | Column | Html | Warc, unit: Unit) -> Iterator[tuple[int, Document | Page]]:
    """The documents of a unit, each with its place in the order of all sources.

    Raises:
        InputError: a file, line or row that cannot be read as text; the message names it.
    """
    for number, document in enumerate(_read_file(source, Path(unit.path))):
        if number % unit.stride == unit.offset:
            yield unit.file << _FILE_BITS | number, document


def _read_file(source: TextFiles | Column | Html | Warc, path: Path) -> Iterator[Document | Page]:
    if isinstance(source, Html | Warc):
        return read_pages(source, path)
    if isinstance(source, TextFiles):
        return read_documents(dataclasses.replace(source, paths=(str(path),)))
    return read_documents(dataclasses.replace(source, table=dataclasses.replace(source.table, paths=(str(path),))))
