"""Bugs put into functions, one at a time: a variable, a binary operator, or the order of two operands.

A bug changes one node of the tree, which its place in the order of `ast.walk` names: the same place in the tree with the bug.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bothways.data.code.modules import parse, written
from bothways.data.code.scopes import variables

BugKind = Literal["variable_misuse", "swapped_operands", "wrong_binary_operator"]

# Operators whose operands cannot change places without changing the meaning
_ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.LShift, ast.RShift)
_COMPARED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn)
# Operators that a slip may put in each other's place
_GROUPS: tuple[tuple[type[ast.AST], ...], ...] = (
    (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
    (ast.BitAnd, ast.BitOr, ast.BitXor, ast.LShift, ast.RShift),
    (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Is, ast.IsNot, ast.In, ast.NotIn),
    (ast.And, ast.Or),
)
_KIN = {one: tuple(other for other in group if other is not one) for group in _GROUPS for one in group}


@dataclass(frozen=True)
class Change:
    """What was done to a function.

    Attributes:
        node: the place of the changed node in the order of `ast.walk`.
        part: which of the operators of a comparison it is; 0 for all else.
        before, after: the variable, the operator's class, or (of operands that were swapped) the left one before and after.
    """

    kind: BugKind
    node: int
    part: int
    before: str
    after: str


@dataclass(frozen=True)
class Bug:
    """A function with a bug, and what the bug is."""

    source: str
    change: Change


def bugs(source: str, kind: BugKind, most: int, generator: random.Random) -> Iterator[Bug]:
    """At most so many different bugs of a kind, each put into the function alone, at places drawn without putting back."""
    tree = parse(source)
    function = tree.body[0]
    nodes = list(ast.walk(tree))
    sites = _SITES[kind](function, nodes)
    generator.shuffle(sites)
    for number, part in sites:
        if most == 0:
            return
        bug = _bug(nodes[number], number, part, kind, function, generator)
        if bug is not None:
            most -= 1
            yield bug


def mended(source: str, change: Change) -> str:
    """The function as it was before a change."""
    tree = parse(source)
    node = list(ast.walk(tree))[change.node]
    _put(node, change.part, change.kind, change.before)
    return ast.unparse(tree.body[0])


def from_info(info: Mapping[str, Any]) -> Change:
    """The change that a row of a task tells of."""
    return Change(info["kind"], info["node"], info["part"], info["before"], info["after"])


def differing(one: ast.AST, other: ast.AST) -> int:
    """How many nodes of two trees differ in themselves, and not only in what is below them.

    Two operands that changed places are one difference, that of the node they are of.
    """
    if type(one) is not type(other):
        return 1
    below, beside = ([list(ast.iter_child_nodes(tree)) for tree in (one, other)], [_plain(tree) for tree in (one, other)])
    if len(below[0]) != len(below[1]) or beside[0] != beside[1]:
        return 1
    swappable = isinstance(one, ast.BinOp) or (isinstance(one, ast.Compare) and len(one.ops) == 1)
    if swappable and ast.dump(one) != ast.dump(other) and _swapped(one) == ast.dump(other):
        return 1
    return sum(differing(mine, theirs) for mine, theirs in zip(*below, strict=True))


def has_order(node: ast.AST) -> bool:
    """Whether a node's two operands cannot change places without changing the meaning.

    A text on the left of % is formatting, and a constant on the left gives the order away.
    """
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, _ORDERED) and not isinstance(node.left, ast.Constant | ast.JoinedStr)
    return isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], _COMPARED)


def swap(node: ast.AST) -> None:
    """Let the two operands of a node change places."""
    if isinstance(node, ast.BinOp):
        node.left, node.right = node.right, node.left
    elif isinstance(node, ast.Compare):
        node.left, node.comparators = node.comparators[0], [node.left]


def _swapped(node: ast.AST) -> str:
    swap(node)
    dumped = ast.dump(node)
    swap(node)
    return dumped


def _misuses(function: ast.stmt, nodes: list[ast.AST]) -> list[tuple[int, int]]:
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    used = {id(name) for name in variables(function).uses.values()}
    return [(number, 0) for number, node in enumerate(nodes) if id(node) in used]


def _swaps(function: ast.stmt, nodes: list[ast.AST]) -> list[tuple[int, int]]:
    chosen = [(number, node) for number, node in enumerate(nodes) if has_order(node)]
    return [(number, 0) for number, node in chosen if len({ast.dump(one) for one in _operands(node)}) == 2]


def _operators(function: ast.stmt, nodes: list[ast.AST]) -> list[tuple[int, int]]:
    found = []
    for number, node in enumerate(nodes):
        if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in _KIN:
            found.append((number, 0))
        elif isinstance(node, ast.Compare):
            found += [(number, part) for part, op in enumerate(node.ops) if type(op) in _KIN]
    return found


_SITES = {"variable_misuse": _misuses, "swapped_operands": _swaps, "wrong_binary_operator": _operators}


def _bug(node: ast.AST, number: int, part: int, kind: BugKind, function: ast.stmt, generator: random.Random) -> Bug | None:
    """The function with a bug at a node, whose tree is left as it was; None where there is none to put in."""
    before = _spelt(node, part, kind)
    if isinstance(node, ast.Name):
        assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        others = variables(function).others(node)
        if not others:
            return None
        after = generator.choice(others)
    elif kind == "wrong_binary_operator":
        after = generator.choice(_KIN[type(_operator(node, part))]).__name__
    else:
        after = ast.unparse(_operands(node)[1])
    _put(node, part, kind, after)
    source = written(function)
    _put(node, part, kind, before)
    return None if source is None else Bug(source, Change(kind, number, part, before, after))


def _spelt(node: ast.AST, part: int, kind: BugKind) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return ast.unparse(_operands(node)[0]) if kind == "swapped_operands" else type(_operator(node, part)).__name__


def _put(node: ast.AST, part: int, kind: BugKind, value: str) -> None:
    """Put a variable or an operator in the place of what is there; or let operands change places."""
    if kind == "swapped_operands":
        swap(node)
    elif isinstance(node, ast.Name):
        node.id = value
    elif isinstance(node, ast.BinOp | ast.BoolOp):
        node.op = getattr(ast, value)()
    elif isinstance(node, ast.Compare):
        node.ops[part] = getattr(ast, value)()


def _operator(node: ast.AST, part: int) -> ast.AST:
    if isinstance(node, ast.Compare):
        return node.ops[part]
    assert isinstance(node, ast.BinOp | ast.BoolOp)
    return node.op


def _operands(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    return [node.left, *node.comparators] if isinstance(node, ast.Compare) else []


def _plain(node: ast.AST) -> list[Any]:
    """What a node holds beside other nodes."""
    values = [getattr(node, name, None) for name in node._fields]
    return [_bare(value) for value in values]


def _bare(value: Any) -> Any:
    if isinstance(value, list):
        return [_bare(one) for one in value]
    return None if isinstance(value, ast.AST) else (type(value), value)
