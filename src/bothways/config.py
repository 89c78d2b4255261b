"""Strict, frozen configs and their JSON form.

A config is a pydantic dataclass: keyword-only, frozen, hashable, and closed (an unknown field is
refused with a suggestion, never stored). A choice between kinds is a union of such classes told
apart by a literal `type` field. Classes are final: a subclass would pass the union and lose its own
fields in JSON.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar, Union, cast, dataclass_transform, get_args, get_origin

import pydantic
import pydantic.dataclasses

from bothways.errors import InputError

C = TypeVar("C")

_SETTINGS = pydantic.ConfigDict(strict=True, extra="forbid", ser_json_inf_nan="constants")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def config(cls: type[C]) -> type[C]:
    """Make `cls` a config: a strict, frozen, keyword-only pydantic dataclass."""
    return pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=_SETTINGS)(cls)  # type: ignore[return-value]


def to_json(value: object) -> str:
    """The config as indented JSON; `from_json` reads it back equal."""
    return pydantic.TypeAdapter(type(value)).dump_json(value, indent=2).decode() + "\n"


def from_json(cls: type[C], text: str, where: str) -> C:
    """Read a `cls` from JSON text. `where` names the source (a file) in errors.

    Raises:
        InputError: invalid JSON, an unknown field (with the nearest known name), a wrong value.
    """
    try:
        return pydantic.TypeAdapter(cls).validate_json(text)
    except pydantic.ValidationError as error:
        raise InputError(f"{where}: {explain(error, cls)}") from None


def override(value: C, assignments: Sequence[str]) -> C:
    """A copy of `value` with leaves replaced, each given as `path.to.field=value`.

    The value is read as JSON where it is JSON, else as text; list elements are named by number
    (`encoder.layers.0.mlp.size=512`).

    Raises:
        InputError: a path that does not exist (with a suggestion), or a value of the wrong type.
    """
    tree = json.loads(to_json(value))
    for assignment in assignments:
        path, found, text = assignment.partition("=")
        if not found:
            raise InputError(f"--set {assignment}: expected path.to.field=value")
        _assign(tree, path.strip().split("."), _parse(text), assignment)
    return from_json(type(value), json.dumps(tree), where="--set " + ", ".join(assignments))


def explain(error: pydantic.ValidationError, cls: type[Any]) -> str:
    """The first fault of a validation error in one line, with a suggestion for a misspelt field."""
    faults = error.errors(include_url=False)
    # a misspelt field is also a missing one: the misspelling is what the reader wants to hear of
    fault = next((one for one in faults if one["type"] == "unexpected_keyword_argument"), faults[0])
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "value_error":
        return str(fault.get("ctx", {}).get("error", fault["msg"]))
    if fault["type"] != "unexpected_keyword_argument":
        return f"{path}: {fault['msg'][0].lower()}{fault['msg'][1:]}" if path else fault["msg"]
    name, owner = str(fault["loc"][-1]), ".".join(str(part) for part in fault["loc"][:-1])
    near = difflib.get_close_matches(name, sorted({f for c in _configs(cls) for f in _names(c)}), n=1, cutoff=0.6)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{owner or cls.__name__}: no field '{name}'{hint}"


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _assign(tree: Any, path: list[str], value: object, assignment: str) -> None:
    node = tree
    for depth, key in enumerate(path):
        choices = list(node) if isinstance(node, dict) else [str(i) for i in range(len(node))] if isinstance(node, list) else []
        if key not in choices:
            near = difflib.get_close_matches(key, choices, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; there is {', '.join(choices) or 'nothing below'}"
            raise InputError(f"--set {assignment}: no field '{key}' in {'.'.join(path[:depth]) or 'the run'}{hint}")
        slot: Any = key if isinstance(node, dict) else int(key)
        if depth == len(path) - 1:
            node[slot] = value
        else:
            node = node[slot]


def _names(cls: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _configs(annotation: Any) -> Iterator[type[Any]]:
    """Every config class reachable from an annotation, for suggestions."""
    if get_origin(annotation) in (Union, types.UnionType, tuple, Annotated):
        for part in get_args(annotation):
            yield from _configs(part)
    elif dataclasses.is_dataclass(annotation):
        cls = cast("type[Any]", annotation)
        yield cls
        for part in typing.get_type_hints(cls).values():
            yield from _configs(part)
