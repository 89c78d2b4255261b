"""`run.json`: what a folder's run is, written once, and the rule that nothing else may go on in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from bothways.config import explain
from bothways.errors import InputError
from bothways.files import write_text
from bothways.training.optimizer import Row
from bothways.training.schedule import Elapsed, Steps, Tokens

NAME = "run.json"


@dataclass(frozen=True)
class Record:
    """A run, frozen at its start.

    Attributes:
        run: the whole run's config, as JSON.
        fingerprint: the sha256 of `run` without its free fields.
        budget: in steps, tokens or seconds; `Hours` have been turned into tokens. None: of a run of stages, which have theirs.
        parameters: the optimizer's parameter table; empty for a run of stages.
        weights: of what the loss adds up, by name; empty for a run of stages, and where an older one did not say.
        stages: the folders of a run's stages, in their order, each a run of its own; empty for a run of one.
    """

    run: dict[str, Any]
    fingerprint: str
    budget: Annotated[Steps | Tokens | Elapsed, Field(discriminator="type")] | None
    parameters: tuple[Row, ...]
    weights: Mapping[str, float] = field(default_factory=dict)
    stages: tuple[str, ...] = ()


def fingerprint(run: dict[str, Any], free: Collection[str]) -> str:
    """The sha256 of a run's config, but for the free fields (see `same_run`)."""
    bound = {path: leaf for path, leaf in _leaves(run).items() if not _free(path, free)}
    return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()


def write(folder: Path, record: Record) -> None:
    """Write `run.json`.

    Raises:
        InputError: the folder holds another run's files, or cannot be written.
    """
    strays = [name for name in ("log.jsonl", "checkpoints") if (folder / name).exists()]
    if strays:
        raise InputError(
            f"{folder}: there is {strays[0]} but no {NAME}, so this is not a run to go on with; choose another folder"
        )
    write_text(folder / NAME, json.dumps(asdict(record), indent=2) + "\n")


def read(folder: Path) -> Record | None:
    """The record of a folder; None where no run has begun.

    Raises:
        InputError: a `run.json` that was not written here.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        return pydantic.TypeAdapter(Record).validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        raise InputError(f"{path}: not the record of a run ({explain(error, Record)}); choose another folder") from None


def same_run(saved: dict[str, Any], run: dict[str, Any], free: Collection[str], where: Path) -> None:
    """Refuse to go on with another run's state.

    Args:
        free: dotted paths of fields, with all below them, that do not change what is learned.

    Raises:
        InputError: names the first field that differs.
    """
    old, new = _leaves(saved), _leaves(run)
    for path in [*new, *(path for path in old if path not in new)]:
        if old.get(path) != new.get(path) and not _free(path, free):
            was, now = (json.dumps(leaves[path]) if path in leaves else "absent" for leaves in (old, new))
            raise InputError(
                f"{where} belongs to another run: {path} was {was}, now {now}; choose another folder or restore the field"
            )


def same_weights(saved: Mapping[str, float], weights: Mapping[str, float], where: Path) -> None:
    """Refuse to go on with a loss that adds up otherwise; an older record says nothing of it."""
    if saved and dict(saved) != dict(weights):
        name = next(one for one in (*weights, *saved) if weights.get(one) != saved.get(one))
        raise InputError(
            f"{where} belongs to another run: the weight of {name} was {saved.get(name, 'absent')}, now "
            f"{weights.get(name, 'absent')}; choose another folder or restore it"
        )


def table_rows(rows: Sequence[Row]) -> list[list[str]]:
    """The parameter table for printing: name, shape, group, optimizer, learning rate factor, weight decay."""
    return [
        [
            ", ".join((row.name, *row.shared)),
            "x".join(map(str, row.shape)),
            row.group,
            row.optimizer or "",
            f"{row.lr:g}",
            f"{row.weight_decay:g}",
        ]
        for row in rows
    ]


def _free(path: str, free: Collection[str]) -> bool:
    return any(path == one or path.startswith(one + ".") for one in free)


def _leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Dotted path -> leaf; an empty object or list is a leaf."""
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = {}
    for key, value in below:
        found |= _leaves(value, f"{path}.{key}" if path else str(key))
    return found or {path: tree}
