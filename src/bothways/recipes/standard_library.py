"""Text and code that every machine with Python has: the standard library, as corpus, task and pairs."""

from __future__ import annotations

import ast
import random
import sysconfig
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bothways.data.code.bugs import has_order, swap
from bothways.data.code.modules import definitions, without_docstring

# Parts that are tests, generated tables or other people's packages
_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "pydoc_data", "encodings", "__pycache__"}


@dataclass(frozen=True)
class Function:
    """A documented function: where it is, its docstring, and its source without the docstring."""

    name: str
    docstring: str
    source: str

    @property
    def summary(self) -> str:
        """The docstring's first paragraph, on one line."""
        return " ".join(self.docstring.split("\n\n")[0].split())


@dataclass(frozen=True)
class Module:
    """A parsed module. `held_out` says it is kept from all training; a function of its name."""

    name: str
    text: str
    tree: ast.Module
    held_out: bool


def modules(share: float = 0.1) -> list[Module]:
    """The standard library's modules, sorted, a share of them held out."""
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for path in sorted(root.rglob("*.py")):
        if _LEFT_OUT & set(path.relative_to(root).parts):
            continue
        try:
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (SyntaxError, UnicodeDecodeError):
            continue  # broken on purpose, as fixtures are
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        found.append(Module(name, text, tree, zlib.crc32(name.encode()) % 1000 < share * 1000))
    return found


def functions(module: Module) -> Iterator[Function]:
    """The documented functions and methods of a module that do something."""
    for name, node in definitions(module.tree, module.name):
        docstring = ast.get_docstring(node)
        if docstring and len(docstring.split()) >= 4 and len(node.body) > 1:
            yield Function(name, docstring, ast.unparse(without_docstring(node)))


def swapped_operands(module: Module, generator: random.Random) -> Iterator[tuple[str, str]]:
    """Statements with an operator whose operands have an order, as written and swapped: (code, label).

    The words are the same either way; only their order tells (CuBERT's task, arXiv 2001.00059).
    """
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Assign | ast.Return | ast.AugAssign | ast.If | ast.While | ast.Expr):
            continue
        root = node.test if isinstance(node, ast.If | ast.While) else node
        candidates = [one for one in ast.walk(root) if has_order(one)]
        written = ast.unparse(root)
        if not candidates or len(written) > 200:
            continue
        chosen = generator.choice(candidates)
        swap(chosen)
        swapped = ast.unparse(root)
        swap(chosen)
        yield from ((written, "as written"), (swapped, "swapped"))
