"""Python files and the functions in them; what does not parse is counted, with the reason."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from bothways.data.code.lexing import flatten, lex, to_text
from bothways.data.reading import find, read_whole
from bothways.errors import InputError

Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A file that parses; `name` is its path, which begins with the folder it was looked for in."""

    name: str
    text: str
    tree: ast.Module

    @cached_property
    def flat(self) -> str:
        """The text of its tokens. Raises InputError for what parses and the lexer cannot read (some signs in names)."""
        return to_text(self.text)


@dataclass(frozen=True)
class Found:
    """The modules of some folders, in the order of their names, and why other files are not among them, by name."""

    modules: tuple[Module, ...]
    refused: dict[str, str]


@dataclass(frozen=True)
class Function:
    """A function or method: its module, its path within it, its docstring, and its source without the docstring.

    Attributes:
        source: written anew by `ast.unparse`, so no two functions differ in how they are laid out.
        text, tokens: the source's tokens as text (`lexing.flatten`), and how many there are.
    """

    module: str
    name: str
    docstring: str | None
    source: str
    text: str
    tokens: int


def read_modules(
    paths: Sequence[str], left_out: Collection[str] = (), advance: Callable[[int, int], object] = lambda files, size: None
) -> Found:
    """Parse all Python files of some folders (or files).

    Args:
        left_out: names of folders whose files are not looked at.
        advance: told of each file, and of its bytes.

    Raises:
        InputError: no such folder, no Python file in it, or none that parses; two files of one name.
    """
    modules, refused = dict[str, Module](), dict[str, str]()
    for path in paths:
        root = Path(path)
        for file in find([path], (".py", ".pyi")).files:
            name = (Path(root.resolve().name) / file.relative_to(root)).as_posix() if root.is_dir() else file.name
            if set(Path(name).parts[1:-1]) & set(left_out):
                continue
            if name in modules or name in refused:
                raise InputError(f"{file}: another of the folders has a file '{name}', too; give the folder above both")
            try:
                text = read_whole(file, "utf-8")
                module = Module(name, text, parse(text))
                if not module.flat:  # made now, so that what the lexer cannot read is refused here
                    raise InputError("no code in it")
                modules[name] = module
            except InputError as error:
                refused[name] = str(error).removeprefix(f"{file}: ")
            advance(1, file.stat().st_size)
    if not modules:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:3])
        raise InputError(f"{', '.join(paths)}: no file of Python that parses{f' ({reasons})' if reasons else ''}")
    return Found(tuple(modules[name] for name in sorted(modules)), refused)


def parse(source: str) -> ast.Module:
    """The tree of a source. Raises InputError, which names the line, for one that does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in other people's strings
            return ast.parse(source)
    except SyntaxError as error:
        raise InputError(f"line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"cannot be parsed: {error or type(error).__name__}") from None


def functions(module: Module, leave: Callable[[str], object] = lambda name: None) -> Iterator[Function]:
    """The functions and methods of a module that do something beside having a docstring; those within others are parts of them.

    Args:
        leave: told of each that is left out, for `ast.unparse` writes it otherwise than it is (an f-string with quotes of both
            kinds) or nothing is in it.
    """
    for name, node in definitions(module.tree, nested=False):
        bare = without_docstring(node)
        source = written(bare) if bare.body else None
        if source is None:
            leave(name)
        else:
            tokens = lex(source)
            yield Function(module.name, name, _docstring(node), source, flatten(tokens).text, len(tokens))


def _docstring(node: Definition) -> str | None:
    """A docstring that is text: not one with half of a character, which no file can hold."""
    text = ast.get_docstring(node)
    return text if text is None or not any("\ud800" <= one <= "\udfff" for one in text) else None


def written(tree: ast.AST) -> str | None:
    """The source of a tree; None where it would not be read as the same tree again."""
    try:
        source = ast.unparse(tree)
        return source if ast.dump(parse(source).body[0]) == ast.dump(tree) else None
    except (ValueError, RecursionError, InputError):
        return None


def definitions(node: ast.AST, path: str = "", nested: bool = True) -> Iterator[tuple[str, Definition]]:
    """All functions and methods below a node, by name, in their order; those within functions where asked for."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{path}.{child.name}" if path else child.name
            if not isinstance(child, ast.ClassDef):
                yield name, child
            if nested or isinstance(child, ast.ClassDef):
                yield from definitions(child, name, nested)


def without_docstring(node: Definition) -> Definition:
    """The function without its docstring; its body may then be empty."""
    if ast.get_docstring(node, clean=False) is None:
        return node
    bare = copy(node)
    bare.body = node.body[1:]
    return bare
