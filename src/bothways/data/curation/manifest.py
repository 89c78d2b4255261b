"""The manifest of a folder of curated documents, and whether the folder is as it says."""

from __future__ import annotations

import dataclasses
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from bothways.config import config, from_json
from bothways.data.curation.recipe import Curation, Local
from bothways.data.curation.shards import ShardFile, sha256
from bothways.data.curation.sources import list_files
from bothways.errors import InputError

NAME = "manifest.json"
# Packages whose rules decide what is kept: with other versions, another output may come out
_DECIDING = ("datatrove", "lingua-language-detector", "rensa", "spacy", "trafilatura")


@config
class InputFile:
    """One file that was read."""

    path: str
    bytes: int


@config
class CurationManifest:
    """What a folder of curated documents holds, and what it was made from.

    Attributes:
        inputs: the files that were read.
        recipe: what was done; the executor, which decides nothing, is left at its default.
        versions: of the packages whose rules decide what is kept.
    """

    format: Literal[1] = 1
    documents: int
    characters: int
    shards: tuple[ShardFile, ...]
    inputs: tuple[InputFile, ...]
    recipe: Curation
    versions: tuple[tuple[str, str], ...]


def read_manifest(folder: Path) -> CurationManifest:
    """The manifest of a folder, whose shards are compared with it.

    Raises:
        InputError: no manifest, or a shard missing, cut short or changed; the message names it.
    """
    path = folder / NAME
    if not path.is_file():
        raise InputError(f"{folder}: no curated documents (no {NAME}); make them with `bothways curate`")
    manifest = from_json(CurationManifest, path.read_text(encoding="utf-8"), str(path))
    for shard in manifest.shards:
        file = folder / "data" / shard.name
        if not file.is_file():
            raise InputError(f"{file}: missing; remove {folder} and curate again")
        if file.stat().st_size != shard.bytes or sha256(file) != shard.sha256:
            raise InputError(f"{file}: not what the manifest says; remove {folder} and curate again")
    return manifest


def deciding(recipe: Curation) -> Curation:
    """The recipe without what decides nothing."""
    return dataclasses.replace(recipe, executor=Local())


def inputs_of(recipe: Curation) -> tuple[InputFile, ...]:
    """The files of all sources. Raises InputError for a source without files."""
    files = (path for source in recipe.sources for path in list_files(source).files)
    return tuple(InputFile(path=str(path), bytes=path.stat().st_size) for path in files)


def versions() -> tuple[tuple[str, str], ...]:
    """The deciding packages that are installed."""
    found = []
    for name in _DECIDING:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)
