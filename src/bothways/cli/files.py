"""Where verbs write: under a temporary name beside the place, then moved there whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bothways.errors import InputError
from bothways.files import replacing

_MAGIC = {".npy": b"\x93NUMPY", ".parquet": b"PAR1"}


def check_replaceable(path: Path) -> None:
    """Refuse to put a file of this suffix in the place of something of another kind.

    Raises:
        InputError: a folder, or a file that is not what its suffix says, is there already.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    magic = _MAGIC[path.suffix]
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(len(magic)) != magic:
                raise InputError(f"{path}: exists and is not a {path.suffix} file; it is left as it is: choose another name")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yields a temporary name; the file written there takes the place of `path` when the block ends well.

    Raises:
        InputError: as `check_replaceable`, or it cannot be written; what was there before is untouched.
    """
    check_replaceable(path)
    with replacing(path) as temporary:
        yield temporary


def check_no_file(path: Path) -> None:
    """Raise InputError where something of this name is there already."""
    if path.exists():
        raise InputError(f"{path}: exists already and is left as it is; choose another name")


def check_new(folder: Path) -> None:
    """Raise InputError where a folder is not new: a file is in the way, or something is in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already and is left as it is; choose a new or empty folder")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder, which becomes `folder` when the block ends well.

    Raises:
        InputError: as `check_new`, or it cannot be written; then nothing of it is left behind.
    """
    check_new(folder)
    with replacing(folder, kept="nothing was written") as temporary:
        temporary.mkdir()
        yield temporary
