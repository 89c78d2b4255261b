"""Web pages as sources: HTML files, and the records of web archives (WARC, WET), reduced to their main text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bothways.config import config
from bothways.data.curation.step import Verdict
from bothways.data.reading import LONGEST, read_whole
from bothways.data.rows import Paths
from bothways.errors import InputError, MissingExtraError

HTML_SUFFIXES = (".html", ".htm", ".xhtml")
WARC_SUFFIXES = (".warc", ".wet")
Favour = Literal["balance", "precision", "recall"]
_HTML = ("text/html", "application/xhtml+xml")
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)


@config
class Html:
    """HTML files, and folders of them, gzipped or not; of each, the main text (trafilatura).

    Attributes:
        favour: in doubt, leave text out (`precision`) or take it in (`recall`).
    """

    type: Literal["html"] = "html"
    paths: Paths
    encoding: str = "utf-8"
    favour: Favour = "precision"


@config
class Warc:
    """Web archives, gzipped or not: of each HTML response the main text; of WET records, the text as it is."""

    type: Literal["warc"] = "warc"
    paths: Paths
    favour: Favour = "precision"


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it was found: its markup, or what keeps it from being read."""

    text: str
    where: str
    html: bool = True
    fault: str | None = None


def read_pages(source: Html | Warc, path: Path) -> Iterator[Page]:
    """The pages of one file.

    Raises:
        InputError: a file that cannot be read; the message names it.
        MissingExtraError: warcio is not installed.
    """
    if isinstance(source, Html):
        yield Page(read_whole(path, source.encoding), str(path))
    else:
        yield from _records(path)


def open_extraction(favour: Favour) -> Callable[[Page], Verdict]:
    """What reduces a page to its main text; a function of the page alone.

    Raises:
        MissingExtraError: trafilatura is not installed.
    """
    try:
        from trafilatura import extract
    except ImportError:
        raise MissingExtraError("reading web pages", "data") from None
    # `deduplicate` would compare with pages seen before in this process: what is kept would depend on their order
    options: dict[str, Any] = {"include_comments": False, "deduplicate": False}
    if favour != "balance":
        options[f"favor_{favour}"] = True

    def verdict(page: Page) -> Verdict:
        if page.fault is not None:
            return Verdict(None, reason=page.fault)
        if not page.html:
            return Verdict(page.text) if page.text.strip() else Verdict(None, reason="no text")
        text = extract(page.text, **options)
        return Verdict(text, reason="main text of a page") if text else Verdict(None, reason="no main text")

    return verdict


def _records(path: Path) -> Iterator[Page]:
    try:
        from warcio.archiveiterator import ArchiveIterator
        from warcio.exceptions import ArchiveLoadFailed
    except ImportError:
        raise MissingExtraError("reading web archives", "data") from None
    try:
        with open(path, "rb") as file:
            for number, record in enumerate(ArchiveIterator(file), 1):
                if record.rec_type in ("response", "conversion"):
                    yield _page(record, f"{path}:{number}")
    except (ArchiveLoadFailed, EOFError) as error:
        raise InputError(f"{path}: not a readable web archive: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def _page(record: Any, where: str) -> Page:
    address = record.rec_headers.get_header("WARC-Target-URI")
    where = f"{where} {address}" if address else where
    if record.rec_type == "conversion":
        return _decoded(record.content_stream().read(LONGEST + 1), "utf-8", where, html=False)
    header = (record.http_headers.get_header("Content-Type") if record.http_headers else None) or "unknown"
    kind = header.split(";")[0].strip().lower()
    if kind not in _HTML:
        return Page("", where, fault=f"not HTML: {kind}")
    content = record.content_stream().read(LONGEST + 1)
    declared = re.search(r"charset\s*=\s*\"?([\w.:-]+)", header, re.IGNORECASE)
    inside = _CHARSET.search(content[:4096])
    charset = declared[1] if declared else inside[1].decode("ascii") if inside else "utf-8"
    return _decoded(content, charset, where, html=True)


def _decoded(content: bytes, charset: str, where: str, html: bool) -> Page:
    if len(content) > LONGEST:
        return Page("", where, fault=f"over {LONGEST:,} bytes")
    try:
        return Page(content.decode(charset), where, html)
    except LookupError:
        return Page("", where, fault="an encoding nobody knows")
    except UnicodeError:
        return Page("", where, fault="not in the encoding it declares")
