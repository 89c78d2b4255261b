"""The rows of CuBERT's six tasks (arXiv 2001.00059), made of the functions of one part of the sources.

A row's `function` is the text of a function's tokens (`lexing.flatten`); its `info` says where it is from and what was done
to it.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal, TypeAlias

from bothways.data.code.bugs import Bug, BugKind, bugs
from bothways.data.code.lexing import Flat, escape, flatten, lex, to_text
from bothways.data.code.modules import Function, parse
from bothways.data.code.scopes import Place, variables

TaskName = Literal[
    "function_docstring", "exception", "variable_misuse", "swapped_operands", "wrong_binary_operator", "variable_misuse_repair"
]
TASKS: tuple[TaskName, ...] = (
    "function_docstring", "exception", "variable_misuse", "swapped_operands", "wrong_binary_operator", "variable_misuse_repair"
)  # fmt: skip
Row: TypeAlias = dict[str, Any]

HOLE = "__HOLE__"
CORRECT = "Correct"
_LABELS = {
    "variable_misuse": "Variable misuse",
    "swapped_operands": "Swapped operands",
    "wrong_binary_operator": "Wrong binary operator",
}
# What the published task tells apart, but for its class None, of which it has no example
EXCEPTIONS = (
    "ValueError", "KeyError", "AttributeError", "TypeError", "OSError", "IOError", "ImportError", "IndexError", "DoesNotExist",
    "KeyboardInterrupt", "StopIteration", "AssertionError", "SystemExit", "RuntimeError", "HTTPError", "UnicodeDecodeError",
    "NotImplementedError", "ValidationError", "ObjectDoesNotExist", "NameError",
)  # fmt: skip
_LEAST_WORDS = 4


def rows(task: TaskName, functions: Sequence[Function], most: int, seed: int) -> Iterator[Row]:
    """The rows of a task, a function of the functions, the seed and `most`: at most so many bugs (or docstrings) a function.

    Where a row has a bug (or another function's docstring), the same function without it is the row before: half of all rows.
    """
    if task == "function_docstring":
        yield from _docstrings(functions, most, seed)
        return
    for function in functions:
        draw = random.Random(f"{seed} {task} {function.module} {function.name}")
        match task:
            case "exception":
                yield from _exceptions(function)
            case "variable_misuse_repair":
                for bug in bugs(function.source, "variable_misuse", most, draw):
                    yield pointed(function, None)
                    yield pointed(function, bug)
            case _:
                yield from _bugs(function, task, most, draw)


def pointed(function: Function, bug: Bug | None) -> Row:
    """A row of localisation and repair, with places in its text in place of the published masks over tokens.

    `candidates` are where the function's variables stand, `error` is where the wrong one does (null without a bug), and `targets`
    are where the right one does.
    """
    flat, places = _places(function.source if bug is None else bug.source)
    error, targets = None, list[int]()
    if bug is not None:
        changed = list(ast.walk(parse(bug.source)))[bug.change.node]
        assert isinstance(changed, ast.Name)
        error = places.pop((changed.lineno, changed.col_offset))[1]
        targets = sorted(offset for name, offset in places.values() if name == bug.change.before)
    candidates = sorted([offset for _, offset in places.values()] + ([] if error is None else [error]))
    info = _info(function) | ({} if bug is None else asdict(bug.change))
    return {"function": flat.text, "error": error, "targets": targets, "candidates": candidates, "info": info}


def _bugs(function: Function, kind: BugKind, most: int, draw: random.Random) -> Iterator[Row]:
    for bug in bugs(function.source, kind, most, draw):
        yield {"function": function.text, "label": CORRECT, "info": _info(function)}
        yield {"function": to_text(bug.source), "label": _LABELS[kind], "info": _info(function) | asdict(bug.change)}


def _docstrings(functions: Sequence[Function], most: int, seed: int) -> Iterator[Row]:
    """Functions with their docstrings, and with those of other functions of the same part."""
    said = [one for one in functions if one.docstring and len(one.docstring.split()) >= _LEAST_WORDS]
    for function in said:
        draw = random.Random(f"{seed} docstrings {function.module} {function.name}")
        others = [one for one in draw.sample(said, min(len(said), most + 3)) if one.docstring != function.docstring][:most]
        for other in others:
            row = {"docstring": escape(str(function.docstring)), "function": function.text}
            yield row | {"label": CORRECT, "info": _info(function)}
            info = _info(function) | {"docstring_of": {"file": other.module, "name": other.name}}
            yield row | {"docstring": escape(str(other.docstring)), "label": "Incorrect", "info": info}


def _exceptions(function: Function) -> Iterator[Row]:
    """A row for each handler of one exception: its name is the label, and a hole in the function."""
    tree = parse(function.source)
    for number, node in enumerate(ast.walk(tree)):
        if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name) and node.type.id in EXCEPTIONS:
            label = node.type.id
            node.type.id = HOLE
            text = to_text(ast.unparse(tree))
            node.type.id = label
            yield {"function": text, "label": label, "info": _info(function) | {"node": number}}


def _places(source: str) -> tuple[Flat, dict[Place, tuple[str, int]]]:
    """A function's text; and where its variables stand: by their place in the source, their name and place in the text."""
    tokens = lex(source)
    flat = flatten(tokens)
    function = parse(source).body[0]
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    at = {(one.start, one.text): offset for one, offset in zip(tokens, flat.offsets, strict=True)}
    lines = [line.encode() for line in source.split("\n")]
    found = {}
    for name, places in variables(function).places.items():
        for line, column in places:
            start = (line, len(lines[line - 1][:column].decode()))  # a column of ast is in bytes
            found[(line, column)] = (name, at[(start, name)])
    return flat, found


def _info(function: Function) -> dict[str, Any]:
    return {"file": function.module, "name": function.name}
