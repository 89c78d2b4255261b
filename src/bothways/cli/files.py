"""Where verbs write: under a temporary name beside the place, then moved there whole."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bothways.errors import InputError

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
    from bothways.training.files import reported

    check_replaceable(path)
    # the suffix stays: numpy adds its own to any other name
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    with reported(str(path), "what was there before is untouched"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


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
    from bothways.training.files import reported

    check_new(folder)
    temporary = folder.with_name(f".{os.getpid()}.{folder.name}")
    with reported(str(folder), "nothing was written"):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            temporary.replace(folder)
        except InputError as error:
            raise InputError(str(error).replace(str(temporary), str(folder)) + "; nothing was written") from None
        except Exception as error:  # the tokenizers library raises the system's refusals as bare Exceptions
            code = re.search(r"\(os error (\d+)\)", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
