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
_BINDING = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.NamedExpr, ast.For, ast.AsyncFor, ast.withitem)
Place = tuple[int, int]


@dataclass(frozen=True)
class Variables:
    """The variables of a function: its parameters, and the names it gives values to.

    Attributes:
        places: of each, where its name stands in the function's own scope: line from 1 and column in bytes from 0.
        since: of each, the place from which on it has a value; parameters have one everywhere. It is told from the text
            alone: behind a branch that is not taken a variable may have none.
        uses: the places where a value is read in the body.
    """

    places: dict[str, list[Place]]
    since: dict[str, Place]
    uses: dict[Place, ast.Name]

    def others(self, use: ast.Name) -> list[str]:
        """The variables other than the one used that have a value where it is used, by name."""
        place = (use.lineno, use.col_offset)
        return sorted(name for name, since in self.since.items() if name != use.id and since <= place)


def variables(function: Definition) -> Variables:
    """The variables of a function whose tree has places."""
    foreign = {name for node in ast.walk(function) if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
    own = list(_own(function))
    places: dict[str, list[Place]] = {}
    since: dict[str, Place] = {}
    for argument in _arguments(function.args):
        places[argument.arg] = [(argument.lineno, argument.col_offset)]
        since[argument.arg] = (0, 0)
    for name, place in (bound for node in own if isinstance(node, _BINDING) for bound in _bound(node)):
        if name not in foreign:
            since[name] = min(since.get(name, place), place)
            places.setdefault(name, [])
    uses = {}
    for node in own:
        if isinstance(node, ast.Name) and node.id in since:
            place = (node.lineno, node.col_offset)
            places[node.id].append(place)
            if isinstance(node.ctx, ast.Load):
                uses[place] = node
    return Variables(places, since, dict(sorted(uses.items())))


def _bound(node: ast.AST) -> Iterator[tuple[str, Place]]:
    """The names that a node gives values to, and the place behind what makes the value: only from there on they have it."""
    match node:
        case ast.Assign(targets=targets, value=value):
            pass
        case ast.AugAssign(target=target, value=value) | ast.NamedExpr(target=target, value=value):
            targets = [target]
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            targets = [target]
        case ast.For(target=target, iter=value) | ast.AsyncFor(target=target, iter=value):
            targets = [target]
        case ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
            targets = [target]
        case _:
            return
    end = (value.end_lineno or 0, value.end_col_offset or 0)
    for one in targets:
        for name in ast.walk(one):
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                yield name.id, end


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    starred = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *starred]


def _own(function: Definition) -> Iterator[ast.AST]:
    """The nodes of a function's body that are in its own scope."""
    waiting = list[ast.AST](reversed(function.body))
    while waiting:
        node = waiting.pop()
        if not isinstance(node, _APART):
            yield node
            waiting.extend(reversed(list(ast.iter_child_nodes(node))))
