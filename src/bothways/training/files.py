"""Writing files so that a kill or a full disk at any moment leaves the old ones whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bothways.errors import InputError


@contextlib.contextmanager
def reported(what: str, kept: str) -> Iterator[None]:
    """Turn the operating system's refusal to write `what` into one line that says what is still whole.

    Raises:
        InputError: a full disk, a missing permission, a file in the way.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {what}: {reason}; {kept}; make room or choose another folder, then go on") from error


def sync(path: Path) -> None:
    """Make a file or a folder's entries survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it over `path`.

    Raises:
        InputError: it cannot be written; what was there before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with reported(str(path), "what was there before is untouched"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
