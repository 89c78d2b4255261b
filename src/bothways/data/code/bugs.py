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
from bothways.data.code.scopes import Variables, variables

BugKind = Literal["variable_misuse", "swapped_operands", "wrong_binary_operator"]

# Operators whose operands cannot change places without changing the meaning
_ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.LShift, ast.RShift)
_COMPARED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn)
# Operators that a slip may put in each other's place
_GROUPS: tuple[tuple[type[Any], ...], ...] = (
    (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
    (ast.BitAnd, ast.BitOr, ast.BitXor, ast.LShift, ast.RShift),
    (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Is, ast.IsNot, ast.In, ast.NotIn),
    (ast.And, ast.Or),
)
_KIN: dict[type[Any], tuple[type[Any], ...]] = {
    one: tuple(other for other in group if other is not one) for group in _GROUPS for one in group
}


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
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    known = variables(function)
    sites = _sites(kind, nodes, known)
    generator.shuffle(sites)
    for place in sites:
        if most == 0:
            return
        bug = _bug(function, nodes[place[0]], place, kind, known, generator)
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
    different, pairs = 0, [(one, other)]
    while pairs:
        mine, theirs = pairs.pop()
        below = list(ast.iter_child_nodes(mine)), list(ast.iter_child_nodes(theirs))
        unlike = type(mine) is not type(theirs) or len(below[0]) != len(below[1]) or _beside(mine) != _beside(theirs)
        if unlike or _swapped(mine, theirs):
            different += 1
        else:
            pairs.extend(zip(*below, strict=True))
    return different


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


def _swapped(one: ast.AST, other: ast.AST) -> bool:
    """Whether two nodes differ in the order of their two operands alone."""
    operands, others = _operands(one), _operands(other)
    if len(operands) != 2 or ast.dump(one) == ast.dump(other):
        return False
    swap(one)
    dumped = ast.dump(one)
    swap(one)
    return len(others) == 2 and dumped == ast.dump(other)


def _sites(kind: BugKind, nodes: list[ast.AST], known: Variables) -> list[tuple[int, int]]:
    """The nodes that a bug of this kind can be put into, and which of a comparison's operators."""
    match kind:
        case "variable_misuse":
            used = {id(name) for name in known.uses.values()}
            return [(number, 0) for number, node in enumerate(nodes) if id(node) in used]
        case "swapped_operands":
            return _swaps(nodes)
        case "wrong_binary_operator":
            return _operators(nodes)


def _swaps(nodes: list[ast.AST]) -> list[tuple[int, int]]:
    chosen = [(number, node) for number, node in enumerate(nodes) if has_order(node)]
    return [(number, 0) for number, node in chosen if len({ast.dump(one) for one in _operands(node)}) == 2]


def _operators(nodes: list[ast.AST]) -> list[tuple[int, int]]:
    found = []
    for number, node in enumerate(nodes):
        if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in _KIN:
            found.append((number, 0))
        elif isinstance(node, ast.Compare):
            found += [(number, part) for part, op in enumerate(node.ops) if type(op) in _KIN]
    return found


def _bug(
    function: ast.stmt, node: ast.AST, place: tuple[int, int], kind: BugKind, known: Variables, generator: random.Random
) -> Bug | None:
    """The function with a bug at a node, whose tree is left as it was; None where there is none to put in."""
    number, part = place
    before = _spelt(node, part, kind)
    if isinstance(node, ast.Name):
        others = known.others(node)
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


def _beside(node: ast.AST) -> str:
    """What a node holds beside other nodes."""
    return repr([value for value in vars(node).items() if value[0] in node._fields and not _holds_nodes(value[1])])


def _holds_nodes(value: Any) -> bool:
    return isinstance(value, ast.AST) or (isinstance(value, list) and any(isinstance(one, ast.AST) for one in value))
