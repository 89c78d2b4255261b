"""What a function is whatever it calls its own things: two that differ in such names alone have one shape."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence

from bothways.data.code.modules import parse

# Fields with the name of something. What stands behind a dot, and the name of a keyword, belong to what is called
_FIELDS = ("name", "id", "arg", "asname", "rest")


def shape(source: str) -> bytes:
    """A hash of a function's tree, in which its own names are numbered in the order they first appear in.

    Its own are the function's name, its arguments, and all that is given a value in it (so also those of functions within it,
    without telling which scope a name is of: a builtin whose name is also bound counts as its own).

    Other names (globals, builtins), attributes, keywords, constants, annotations and decorators stay, as they say what the
    function does: `min(a)` is not `max(a)`. A docstring is to be gone before.
    """
    tree = parse(source)
    nodes = list(ast.walk(tree))
    own = _own(nodes)
    appearing = dict.fromkeys(name for node in nodes for _, name in _names(node) if name in own)
    numbered = {name: f"#{number}" for number, name in enumerate(appearing)}  # no name has this sign
    for node in nodes:
        for field, name in list(_names(node)):
            setattr(node, field, numbered.get(name, name))
        if isinstance(node, ast.Nonlocal):
            node.names = [numbered.get(name, name) for name in node.names]
    return hashlib.blake2b(ast.dump(tree).encode(), digest_size=16).digest()


def _own(nodes: Sequence[ast.AST]) -> set[str]:
    """The names that are given values, but those declared global."""
    bound = {name for node in nodes for _, name in _names(node) if not isinstance(getattr(node, "ctx", None), ast.Load)}
    return bound.difference(*(node.names for node in nodes if isinstance(node, ast.Global)))


def _names(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The fields of a node that hold names; what `import` names is another module's, unless it is called otherwise here."""
    if isinstance(node, ast.keyword):
        return
    for field in _FIELDS:
        name = getattr(node, field, None)
        if isinstance(name, str) and not (field == "name" and isinstance(node, ast.alias)):
            yield field, name
