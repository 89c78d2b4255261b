"""Where text comes from: files and folders of text, or a column of a table."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from bothways.config import config
from bothways.data.reading import Listing, check_length, find, kind_of, read_lines, read_whole, split_by
from bothways.data.rows import TABLE_KINDS, Paths, Table, list_table, read_rows, table_of
from bothways.errors import InputError

_PROSE = "txt text md markdown rst org adoc tex log srt"
_CODE = "py pyi c h cc cpp hpp cs go java js jsx jl kt lua m php pl r rb rs scala sh sql swift ts tsx"
TEXT_SUFFIXES = tuple(f".{name}" for name in f"{_PROSE} {_CODE}".split())
Split = Literal["whole", "paragraph", "line"]


@dataclass(frozen=True, slots=True)
class Document:
    """A text and where it was found: `file`, `file:line`, or a table's `file:row`."""

    text: str
    where: str


@config
class TextFiles:
    """Text files, and folders of them, gzipped or not.

    Attributes:
        split: one document a file, a paragraph (blank lines between), or a line that is not blank.
    """

    type: Literal["text"] = "text"
    paths: Paths
    split: Split = "whole"
    encoding: str = "utf-8"


@config
class Column:
    """A column of text in a table; `split` cuts each value as it does the files of `TextFiles`."""

    type: Literal["column"] = "column"
    table: Table
    column: str = "text"
    split: Split = "whole"


Source = Annotated[TextFiles | Column, pydantic.Field(discriminator="type")]


def list_source(source: TextFiles | Column) -> Listing:
    """The files a source reads, and those it leaves out. Raises InputError where there are none."""
    return find(source.paths, TEXT_SUFFIXES) if isinstance(source, TextFiles) else list_table(source.table)


def read_documents(source: TextFiles | Column) -> Iterator[Document]:
    """The documents of a source, in the order of its files.

    Raises:
        InputError: a file, line or row that cannot be read as text; the message names it.
    """
    if isinstance(source, Column):
        for where, (value,) in read_rows(source.table, [source.column]):
            if not isinstance(value, str):
                raise InputError(f"{where}: column '{source.column}' holds {type(value).__name__}, not text")
            yield from _split(value, where, source.split)
        return
    for path in list_source(source).files:
        if source.split == "whole":
            yield Document(read_whole(path, source.encoding), str(path))
        else:
            yield from _pieces(read_lines(path, source.encoding), str(path), source.split)


def open_source(path: Path, column: str = "text", split: Split = "whole") -> TextFiles | Column:
    """The source at a path, told by suffix; a folder is what most of its bytes are.

    Raises:
        InputError: nothing there, or a suffix that says neither text nor table.
    """
    kind = kind_of(path, dict.fromkeys(TEXT_SUFFIXES, "text") | TABLE_KINDS)
    if kind == "text":
        return TextFiles(paths=(str(path),), split=split)
    return Column(table=table_of(kind, (str(path),)), column=column, split=split)


def _split(text: str, where: str, split: Split) -> Iterator[Document]:
    if split == "whole":
        yield Document(text, where)
    else:
        # not splitlines(), which also ends a line where files have none: at a form feed, a U+2028
        yield from _pieces(enumerate(io.StringIO(text, newline=None), 1), where, split)


def _pieces(lines: Iterable[tuple[int, str]], where: str, split: Split) -> Iterator[Document]:
    """Lines, or the paragraphs they form, that are not blank; each with the number of its first line."""
    gathered: list[str] = []
    first = characters = 0
    for number, line in lines:
        if line.strip():
            first, characters = (first, characters + len(line)) if gathered else (number, len(line))
            check_length(characters, f"{where}:{first}", f"blank lines end a paragraph; or split it: {split_by('line')}")
            gathered.append(line)
        if gathered and (split == "line" or not line.strip()):
            yield Document("".join(gathered).rstrip("\r\n"), f"{where}:{first}")
            gathered = []
    if gathered:
        yield Document("".join(gathered).rstrip("\r\n"), f"{where}:{first}")
