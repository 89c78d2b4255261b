"""Finding files and reading text from them, with every fault of a file turned into one line.

All text passes through here: encodings, compression, binary files and endless lines are dealt with
once. Nothing is decoded with replacement characters, and no line or file is cut.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from bothways.errors import InputError

# The longest line or whole file taken as one text. A novel has under 5 million characters; a tokenizer
# needs memory and time in proportion to the longest text.
LONGEST = 16_000_000
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Listing:
    """The files found under some paths.

    Attributes:
        files: sorted within each folder.
        skipped: in folders, how many files were left out because of their suffix, by suffix.
        empty: in folders, how many files of no bytes were left out.
        hidden: in folders, how many files and folders were left out because their names begin with a dot.
    """

    files: tuple[Path, ...]
    skipped: dict[str, int]
    empty: int
    hidden: int

    def __str__(self) -> str:
        parts = [f"{len(self.files):,} file{'s' if len(self.files) != 1 else ''}"]
        if self.skipped:
            most = sorted(self.skipped.items(), key=lambda item: (-item[1], item[0]))
            kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in most)
            parts.append(f"{sum(self.skipped.values())} skipped ({kinds})")
        if self.empty:
            parts.append(f"{self.empty} empty")
        if self.hidden:
            parts.append(f"{self.hidden} hidden")
        return "; ".join(parts)


def find(paths: Sequence[str], suffixes: Sequence[str]) -> Listing:
    """The files at these paths: a file named is taken whatever its suffix, a folder gives its files of these suffixes.

    Folders are walked recursively; hidden files and folders are left out, symbolic links to folders not followed.

    Raises:
        InputError: a path that does not exist, a named file that is empty, or nothing found.
    """
    files: list[Path] = []
    skipped: Counter[str] = Counter()
    empty = hidden = 0
    for path in map(Path, paths):
        if path.is_file():
            if path.stat().st_size == 0:
                raise InputError(f"{path}: the file is empty")
            files.append(path)
        elif path.is_dir():
            for file in _walk(path):
                if _is_hidden(file.name):
                    hidden += 1
                elif suffix_of(file) not in suffixes:
                    skipped[suffix_of(file)] += 1
                elif file.stat().st_size == 0:
                    empty += 1
                else:
                    files.append(file)
        else:
            raise InputError(f"{path}: no such file or folder")
    listing = Listing(tuple(files), dict(skipped), empty, hidden)
    if not files:
        raise InputError(f"{', '.join(paths)}: nothing to read ({listing}); files that can be read end in {' '.join(suffixes)}")
    return listing


def kind_of(path: Path, kinds: Mapping[str, str]) -> str:
    """What a file is by its suffix; a folder is what most of its bytes are.

    Raises:
        InputError: as `files_by_kind`.
    """
    return next(iter(files_by_kind(path, kinds)))


def files_by_kind(path: Path, kinds: Mapping[str, str]) -> dict[str, tuple[Path, ...]]:
    """The files at a path by what their suffixes say they are; the kind of most bytes comes first.

    Raises:
        InputError: as `find`; or a file whose suffix is not among `kinds`.
    """
    sizes: Counter[str] = Counter()
    files: dict[str, list[Path]] = {}
    for file in find([str(path)], tuple(kinds)).files:
        if suffix_of(file) not in kinds:
            raise InputError(f"{path}: unknown suffix '{suffix_of(file)}'; files that can be read end in {' '.join(kinds)}")
        kind = kinds[suffix_of(file)]
        sizes[kind] += file.stat().st_size
        files.setdefault(kind, []).append(file)
    return {kind: tuple(files[kind]) for kind in sorted(sizes, key=lambda kind: (-sizes[kind], kind))}


def suffix_of(path: Path) -> str:
    """The suffix in lower case without a `.gz` or `.zst` behind it: `.jsonl` for `a.jsonl.gz`."""
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    return os.path.splitext(name)[1]


def read_whole(path: Path, encoding: str) -> str:
    """The text of a file.

    Raises:
        InputError: wrong encoding, binary content, damaged compression, or longer than `LONGEST`.
    """
    with _opened(path, encoding, newline=None) as file:
        return _checked(file.read(LONGEST + 1), str(path), f"split it: {split_by('paragraph')}")


def read_lines(path: Path, encoding: str, newline: str | None = None) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers from 1, line ends kept; `newline` as in `open`.

    Raises:
        InputError: wrong encoding, binary content, damaged compression, or a line longer than `LONGEST`.
    """
    with _opened(path, encoding, newline) as file:
        number = 0
        while line := file.readline(LONGEST + 1):
            number += 1
            yield number, _checked(line, f"{path}:{number}", "break it up")


def check_length(characters: int, where: str, advice: str) -> None:
    """Raise InputError for a text of more characters than `LONGEST`."""
    if characters > LONGEST:
        raise InputError(f"{where}: over {LONGEST:,} characters in one text; {advice}")


def split_by(unit: str) -> str:
    """How to ask for several texts of one file, wherever there is a source."""
    return f"--set source.split={unit} (in Python: split='{unit}')"


def _walk(folder: Path) -> Iterator[Path]:
    """All files, and the hidden folders, which are not entered."""
    for root, folders, names in os.walk(folder):
        yield from (Path(root, name) for name in folders if _is_hidden(name))
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        yield from (file for name in sorted(names) if (file := Path(root, name)).is_file())


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


@contextmanager
def _opened(path: Path, encoding: str, newline: str | None) -> Iterator[TextIO]:
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise InputError(f"{path}: there is no encoding '{encoding}'") from None
    try:
        with _bytes_of(path) as raw, io.TextIOWrapper(raw, encoding=_with_mark(encoding), newline=newline) as text:
            yield text
    except UnicodeError:
        raise InputError(_undecodable(path, encoding)) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip file ({error}); fetch or compress it again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def _bytes_of(path: Path) -> Any:
    """A binary file, decompressed as its name says."""
    if path.name.lower().endswith(".zst"):
        import pyarrow

        return pyarrow.input_stream(str(path), compression="zstd")
    return gzip.GzipFile(path, "rb") if path.name.lower().endswith(".gz") else open(path, "rb")


def _with_mark(encoding: str) -> str:
    """UTF-8 that drops a byte order mark, which would else become part of the first word or column name."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def _checked(text: str, where: str, advice: str) -> str:
    check_length(len(text), where, advice)
    if "\0" in text:
        raise InputError(f"{where}: a zero byte at character {text.index(chr(0))}: a binary file, or utf-16; set its encoding")
    return text


def _undecodable(path: Path, encoding: str) -> str:
    """What is wrong with the bytes of a file, found by decoding it once more, block by block."""
    decoder = codecs.getincrementaldecoder(_with_mark(encoding))()
    done = 0
    with _bytes_of(path) as raw:
        head = raw.read(_BLOCK)
        block = head
        while True:
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(block, final=not block)
            except UnicodeError as error:
                offset = done - pending + (error.start if isinstance(error, UnicodeDecodeError) else 0)
                break
            done += len(block)
            block = raw.read(_BLOCK)
    return f"{path}: not {encoding} at byte {offset}{_guess(head)}"


def _guess(head: bytes) -> str:
    """A suggestion of the encoding the file may be in."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "; it begins like utf-16: set encoding=utf-16"
    if b"\0" in head:
        return ": a binary file"
    try:
        import charset_normalizer
    except ImportError:
        return "; set its encoding (pip install 'bothways[data]' for a guess)"
    found = charset_normalizer.from_bytes(head[:65536]).best()
    return f"; it looks like {found.encoding}: set encoding={found.encoding}" if found else "; set its encoding"
