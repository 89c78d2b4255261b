"""The variables of a function, and where they stand."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from bothways.data.code.modules import Definition

# What has variables of its own; an f-string's inside has no tokens of its own
_APART = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
    ast.JoinedStr,
)  # fmt: skip
Place = tuple[int, int]


@dataclass(frozen=True)
class Variables:
    """The variables of a function: its parameters, and the names it gives values to.

    Attributes:
        places: of each, where its name stands in the function's own scope: line from 1 and column in bytes from 0.
        since: of each, the place from which on it has a value; parameters have one everywhere.
        uses: the places where a value is read in the body.
    """

    places: dict[str, list[Place]]
    since: dict[str, Place]
    uses: dict[Place, ast.Name]

    def others(self, use: ast.Name) -> list[str]:
        """The variables other than the one used that have a value where it is used, by name."""
        place = (use.lineno, use.col_offset)
        return sorted(name for name, since in self.since.items() if name != use.id and since < place)


def variables(function: Definition) -> Variables:
    """The variables of a function whose tree has places."""
    foreign = {
        name for node in ast.walk(function) if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names
    }  # fmt: skip
    places: dict[str, list[Place]] = {}
    since: dict[str, Place] = {}
    names = [node for statement in function.body for node in _own(statement) if isinstance(node, ast.Name)]
    for argument in _arguments(function.args):
        places[argument.arg] = [(argument.lineno, argument.col_offset)]
        since[argument.arg] = (0, 0)
    for node in names:
        if isinstance(node.ctx, ast.Store) and node.id not in foreign:
            place = (node.lineno, node.col_offset)
            since[node.id] = min(since.get(node.id, place), place)
            places.setdefault(node.id, [])
    uses = {}
    for node in names:
        if node.id in since:
            place = (node.lineno, node.col_offset)
            places[node.id].append(place)
            if isinstance(node.ctx, ast.Load):
                uses[place] = node
    return Variables(places, since, dict(sorted(uses.items())))


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    starred = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *starred]


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what is below it in the same scope."""
    if isinstance(node, _APART):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _own(child)
