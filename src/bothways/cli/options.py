"""Options that several verbs share, and their examples in help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

# The same choices as `Split`, `Overflow` and `Method` of the rooms below, which would take a second to import.
Split = Literal["whole", "paragraph", "line"]
Overflow = Literal["cut", "error", "chunk"]
Method = Literal["dense", "bm25", "hybrid"]

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A model folder, or the id of a Hugging Face repository.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs to read.")]
ColumnOption = Annotated[str, typer.Option("--column", metavar="NAME", help="The column of text in a table.")]
FamilyOption = Annotated[
    str | None,
    typer.Option("--family", metavar="NAME", help="The family, where config.json does not name it: bert, ..."),
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Refuse unknown keys in config.json instead of warning of them.")]


def named(folder: Path) -> Path:
    """Refuses the current folder: what is written whole takes the place of its folder, and that one is in use."""
    from bothways.errors import InputError

    if not folder.name:
        raise InputError(f"{folder}: is the current folder, or the root; name a new folder in it")
    return folder


def examples(*lines: str) -> str:
    """An epilog of commands that help shows as they are written."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
