"""Between a published checkpoint and our modules: one table of rules, used in both directions.

A rule says how one of our tensors is made of theirs and how it is taken apart again. `{i}` in a name
stands for the layer number. A weight that no rule names is an error, in either direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bothways.errors import InputError


@dataclass(frozen=True)
class Rename:
    """Our tensor is theirs, its rows perhaps in another order.

    Attributes:
        order: from the number of rows, the row of theirs that each of ours is; None keeps them.
    """

    ours: str
    theirs: str
    order: Callable[[int], Tensor] | None = None


@dataclass(frozen=True)
class Fuse:
    """Our tensor is several of theirs, one below the other.

    Attributes:
        shares: the rows of each, as numbers in proportion (grouped heads: queries have more); none: equal parts.
    """

    ours: str
    theirs: tuple[str, ...]
    shares: tuple[int, ...] = ()

    def rows(self, count: int) -> list[int]:
        """How many of `count` rows each has."""
        shares = self.shares or (1,) * len(self.theirs)
        return [count * share // sum(shares) for share in shares]


@dataclass(frozen=True)
class Tied:
    """A second name for a tensor stored under another: written by some, left out by most."""

    theirs: str
    source: str


@dataclass(frozen=True)
class Drop:
    """A tensor of theirs that is not a weight (a buffer of positions, say): read past, never written."""

    theirs: str


Rule = Rename | Fuse | Tied | Drop


def affine(ours: str, theirs: str, bias: bool = True) -> list[Rule]:
    """The rules of a linear layer or a norm: `weight`, and `bias` where there is one."""
    return [Rename(f"{ours}.{part}", f"{theirs}.{part}") for part in (("weight", "bias") if bias else ("weight",))]


def expand(rules: Sequence[Rule], num_layers: int) -> list[Rule]:
    """Rules with `{i}` repeated for every layer's module."""
    out: list[Rule] = []
    for rule in rules:
        numbers = range(num_layers) if "{i}" in _name(rule) else (None,)
        out.extend(rule if i is None else _numbered(rule, i) for i in numbers)
    return out


def to_ours(
    rules: Sequence[Rule], theirs: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], where: str
) -> dict[str, Tensor]:
    """Our state dict from a checkpoint's tensors.

    Args:
        shapes: the shape of each of our tensors, to check against.
        where: the file or folder, for errors.

    Raises:
        InputError: a weight missing, one that no rule names, one of the wrong shape, or a second
            copy of a tied weight that differs from the first. The message names them.
    """
    _refuse("missing", [n for r in rules if not isinstance(r, Tied | Drop) for n in _theirs(r) if n not in theirs], where)
    _refuse("not known to this family", sorted(set(theirs) - {n for r in rules for n in _theirs(r)}), where)
    ours: dict[str, Tensor] = {}
    for rule in rules:
        if isinstance(rule, Rename | Fuse):
            _check_shapes(rule, theirs, shapes[rule.ours], where)
        match rule:
            case Rename():
                tensor = theirs[rule.theirs]
                ours[rule.ours] = tensor if rule.order is None else tensor[rule.order(tensor.shape[0])]
            case Fuse():
                ours[rule.ours] = torch.cat([theirs[name] for name in rule.theirs])
            case Tied():
                if rule.theirs in theirs and not torch.equal(theirs[rule.theirs], theirs[rule.source]):
                    raise InputError(f"{where}: {rule.theirs} differs from {rule.source}, but the config ties them")
            case Drop():
                pass
    return ours


def to_theirs(rules: Sequence[Rule], ours: Mapping[str, Tensor], ties: bool = False) -> dict[str, Tensor]:
    """A checkpoint's tensors from our state dict; with `ties`, tied weights under both names.

    Raises:
        KeyError: one of our tensors that no rule names.
        InputError: two of our tensors have one name there (the poolers of two heads, say), and differ.
    """
    unknown = set(ours) - {rule.ours for rule in rules if isinstance(rule, Rename | Fuse)}
    if unknown:
        raise KeyError(f"no rule writes {sorted(unknown)}")
    theirs: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    for rule in rules:
        match rule:
            case Rename():
                tensor = ours[rule.ours]
                _put(theirs, sources, rule, [tensor if rule.order is None else tensor[torch.argsort(rule.order(len(tensor)))]])
            case Fuse():
                parts = ours[rule.ours].split(rule.rows(len(ours[rule.ours])))
                _put(theirs, sources, rule, [part.clone() for part in parts])
            case Tied() if ties:
                theirs[rule.theirs] = theirs[rule.source]
            case _:
                pass
    return theirs


def _put(theirs: dict[str, Tensor], sources: dict[str, str], rule: Rename | Fuse, tensors: Sequence[Tensor]) -> None:
    for name, tensor in zip(_theirs(rule), tensors, strict=True):
        if name in theirs and not torch.equal(theirs[name], tensor):
            both = f"{sources[name]} and {rule.ours} differ, but are one tensor, {name}, in this family's folders"
            raise InputError(f"{both}; nothing was written; leave one of the heads out (model.with_heads)")
        theirs[name], sources[name] = tensor, rule.ours


def _theirs(rule: Rule) -> tuple[str, ...]:
    return rule.theirs if isinstance(rule, Fuse) else (rule.theirs,)


def _name(rule: Rule) -> str:
    return rule.theirs[0] if isinstance(rule, Fuse) else rule.theirs


def _numbered(rule: Rule, i: int) -> Rule:
    def put(name: str) -> str:
        return name.replace("{i}", str(i))

    match rule:
        case Rename():
            return replace(rule, ours=put(rule.ours), theirs=put(rule.theirs))
        case Fuse():
            return replace(rule, ours=put(rule.ours), theirs=tuple(put(name) for name in rule.theirs))
        case Tied():
            return Tied(put(rule.theirs), put(rule.source))
        case Drop():
            return Drop(put(rule.theirs))


def _check_shapes(rule: Rename | Fuse, theirs: Mapping[str, Tensor], shape: torch.Size, where: str) -> None:
    counts = rule.rows(shape[0]) if isinstance(rule, Fuse) else [shape[0]]
    for name, count in zip(_theirs(rule), counts, strict=True):
        if (found := tuple(theirs[name].shape)) != (wanted := (count, *shape[1:])):
            raise InputError(f"{where}: {name} has shape {found}, the config implies {wanted}")


def _refuse(what: str, names: list[str], where: str) -> None:
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise InputError(f"{where}: {len(names)} weight{'s' if len(names) > 1 else ''} {what}: {shown}")


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "an object", list: "a list"}


def _alike(value: object, default: object) -> bool:
    """Whether a JSON value is of the default's kind; a whole number may stand for any number, but no truth value for one."""
    kinds = (int, float) if isinstance(default, float) else type(default)
    return isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool)


class Reader:
    """A published `config.json`, with an account of what was read.

    A key that was neither read nor declared inert is unknown: a warning, or an error when strict.
    """

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self.data = data
        self.where = where
        self._seen: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` where the key is absent or null.

        Raises:
            InputError: a value of another kind than the default.
        """
        self._seen.add(key)
        value = self.data.get(key)
        if value is None:
            return default
        if default is not None and not _alike(value, default):
            raise InputError(f"{self.where}: {key}={value!r} should be {_KINDS[type(default)]}")
        return value

    def dropout(self, key: str, default: float) -> float:
        """The share that is dropped, from 0 to less than 1.

        Raises:
            InputError: a value outside, or no number.
        """
        value = float(self.get(key, default))
        if not 0 <= value < 1:
            raise InputError(f"{self.where}: {key}={value!r} should be at least 0 and less than 1")
        return value

    def need(self, key: str) -> int:
        """The number under a key that must be there.

        Raises:
            InputError: it is not there, or no whole number.
        """
        if self.data.get(key) is None:
            raise InputError(f"{self.where}: no '{key}', which this family needs")
        return self.get(key, 0)

    def only(self, key: str, *allowed: Any) -> None:
        """Refuse a value we cannot honour; the first of `allowed` is what an absent key means.

        Raises:
            InputError: another value.
        """
        value = self.get(key, allowed[0])
        if value not in allowed:
            raise InputError(f"{self.where}: {key}={value!r} is not supported; supported: {', '.join(map(repr, allowed))}")

    def choice(self, key: str, table: Mapping[str, Any], default: str) -> Any:
        """The entry of `table` under the key's value.

        Raises:
            InputError: a value that is not in the table.
        """
        value = self.get(key, default)
        if value not in table:
            raise InputError(f"{self.where}: {key}={value!r} is not supported; supported: {', '.join(table)}")
        return table[value]

    def unknown(self, inert: Sequence[str]) -> list[str]:
        """Keys that were neither read nor are inert."""
        return sorted(set(self.data) - self._seen - set(inert) - {key for key in self.data if key.startswith("_")})
