"""What an index folder says of itself: `index.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bothways.config import config, from_json, to_json
from bothways.errors import InputError
from bothways.files import write_text
from bothways.retrieval.embedder import Embedder

_FILE = "index.json"


@config
class IndexSettings:
    """The model and the cut of an index, and what it holds.

    Attributes:
        format: the version of the folder's layout.
        model: the name of the model, for people; `fingerprint` decides.
        size: numbers of a vector.
        max_tokens: the most tokens of a passage, special tokens and document prompt included.
        overlap: the most tokens two neighbouring passages share.
        documents: documents it holds, `chunked` of them in more than one passage.
        complete: False while an update is under way, or after one was interrupted.
    """

    format: Literal[1] = 1
    model: str
    fingerprint: str
    size: int
    max_tokens: int
    overlap: int
    documents: int = 0
    chunked: int = 0
    passages: int = 0
    complete: bool = False


def vectors_folder(folder: Path) -> Path:
    return folder / "vectors"


def lexical_folder(folder: Path) -> Path:
    return folder / "bm25"


def read_settings(folder: Path) -> IndexSettings | None:
    """The settings of an index folder; None where there is nothing yet.

    Raises:
        InputError: a file in the way, a folder that holds something else, or an unreadable `index.json`.
    """
    file = folder / _FILE
    if file.is_file():
        try:
            return from_json(IndexSettings, file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read: {error}") from None
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: holds something that is not an index; choose a new or empty folder")
    return None


def write_settings(folder: Path, settings: IndexSettings) -> None:
    write_text(folder / _FILE, to_json(settings))


def check_model(folder: Path, settings: IndexSettings, embedder: Embedder, fingerprint: str) -> None:
    """Raise InputError where an index was made with another model: its vectors mean something else."""
    if settings.fingerprint != fingerprint:
        same = settings.model == embedder.name
        other = "other weights, prompts or tokenizer" if same else f"not {embedder.name or 'this model'}"
        made = f"{folder}: was indexed with {settings.model or 'an unnamed model'}"
        raise InputError(f"{made} ({other}); use that model, or index into a new folder")
