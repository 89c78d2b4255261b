"""Writing files so that a kill or a full disk at any moment leaves the old ones whole."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bothways.errors import InputError

UNTOUCHED = "what was there before is untouched"


@contextlib.contextmanager
def reported(what: str | Path, kept: str = UNTOUCHED) -> Iterator[None]:
    """Turn the operating system's refusal to write `what` into one line that says what is still whole.

    Raises:
        InputError: a full disk, a missing permission, a file in the way.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = _refusal(error)
        if reason is None:
            raise
        raise InputError(f"cannot write {what}: {reason}; {kept}; make room or choose another folder, then go on") from error


@contextlib.contextmanager
def replacing(place: Path, kept: str = UNTOUCHED) -> Iterator[Path]:
    """Yields a temporary name beside `place`; the file or folder made there takes its place when the block ends well.

    The name ends like `place`'s own. What a killed process left under it is removed.

    Raises:
        InputError: it cannot be written; nothing is left under the temporary name. One that the block raises
            speaks of `place`.
    """
    temporary = place.with_name(f".partial.{place.name}")
    with reported(place, kept):
        try:
            _remove(temporary)
            place.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            for path in (*temporary.rglob("*"), temporary):
                sync(path)
            temporary.replace(place)
            sync(place.parent)
        except InputError as error:
            raise InputError(str(error).replace(str(temporary), str(place))) from error
        finally:
            _remove(temporary)


def replace_together(writers: Mapping[Path, Callable[[Path], object]], key: Path) -> None:
    """Write files of one folder that are only of use together, `key` among them, without which the others are not read.

    All are written under temporary names and on the disk before the first takes its place. Then the older key goes, and the
    new one comes last: a kill leaves the older files, the new ones, or a set without a key.

    Args:
        writers: what makes each file under the name it is given.

    Raises:
        InputError: a file cannot be written, and what was there before is untouched; or one cannot take its place, and the
            message says so.
    """
    temporaries = {place: place.with_name(f".partial.{place.name}") for place in (*(one for one in writers if one != key), key)}
    try:
        for place, write in writers.items():
            with reported(place):
                _remove(temporaries[place])
                place.parent.mkdir(parents=True, exist_ok=True)
                write(temporaries[place])
                sync(temporaries[place])
        with reported(key.parent, "its older files may have gone and the new ones not all come"):
            key.unlink(missing_ok=True)
            sync(key.parent)
            for place, temporary in temporaries.items():
                temporary.replace(place)
            sync(key.parent)
    finally:
        for temporary in temporaries.values():
            _remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it over `path`.

    Raises:
        InputError: it cannot be written; what was there before is untouched.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        InputError: it is no JSON, or no object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a JSON object")
    return data


def sync(path: Path) -> None:
    """Make a file or a folder's entries survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refusal(error: Exception) -> str | None:
    """Why the operating system refused; None for an error of another kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # libraries written in Rust (safetensors, tokenizers, LanceDB) wrap the system's refusals in errors of their own
    code = re.search(r"\(os error (\d+)\)", str(error))
    return os.strerror(int(code[1])) if code else None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
