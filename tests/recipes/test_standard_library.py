"""The standard library as corpus, task and pairs."""

from __future__ import annotations

import ast
import random
import tokenize
from io import StringIO

import pytest

from bothways.recipes.standard_library import Module, functions, modules, swapped_operands

SOURCE = '''
def half(x):
    """Divide a number by two."""
    return x / 2

class Box:
    """A class has a docstring, but is no function."""

    async def weigh(self, n):
        """Weigh the box
        and all in it.

        Slowly."""
        if n < self.limit:
            n -= self.empty
        return "%s kg" % n

def short(x):
    """Too short."""
    return x

def nothing():
    """Does nothing at all, in words."""
'''


@pytest.fixture(scope="module")
def library() -> dict[str, Module]:
    return {module.name: module for module in modules()}


def parsed(source: str) -> Module:
    return Module("box", source, ast.parse(source), False)


def tokens(code: str) -> list[str]:
    return [token.string for token in tokenize.generate_tokens(StringIO(code).readline) if token.string.strip()]


def test_functions_are_those_with_a_docstring_and_a_body() -> None:
    half, weigh = functions(parsed(SOURCE))
    assert (half.name, half.docstring, half.summary) == ("box.half", "Divide a number by two.", "Divide a number by two.")
    assert half.source == "def half(x):\n    return x / 2"
    assert (weigh.name, weigh.summary) == ("box.Box.weigh", "Weigh the box and all in it.")
    assert "Slowly" not in weigh.source
    assert weigh.source.startswith("async def weigh(self, n):\n    if n < self.limit:")


def test_a_function_without_its_docstring_leaves_the_module_as_it_was() -> None:
    module = parsed(SOURCE)
    before = ast.dump(module.tree)
    list(functions(module))
    list(swapped_operands(module, random.Random(0)))
    assert ast.dump(module.tree) == before


def test_operands_swapped_by_hand() -> None:
    source = "a = b - c\nif x in y:\n    d = 2 + e\nf = 'text %s' % g\nwhile h < i < j:\n    k == m\nr = f(n) ** s"
    pairs = list(swapped_operands(parsed(source), random.Random(0)))
    assert [code for code, _ in pairs[::2]] == ["a = b - c", "x in y", "r = f(n) ** s"]
    assert [code for code, _ in pairs[1::2]] == ["a = c - b", "y in x", "r = s ** f(n)"]
    assert [label for _, label in pairs] == ["as written", "swapped"] * 3


@pytest.mark.slow
def test_swapped_pairs_of_the_library_have_the_same_tokens(library: dict[str, Module]) -> None:
    """But for parentheses, which keep the swapped operands together."""
    seen = differing = 0
    for name in ("heapq", "bisect", "statistics", "textwrap"):
        pairs = list(swapped_operands(library[name], random.Random(name)))
        for (written, first), (swapped, second) in zip(pairs[::2], pairs[1::2], strict=True):
            assert (first, second) == ("as written", "swapped")
            ast.parse(f"def f():\n {swapped}" if swapped.startswith(("return", "yield")) else swapped)
            left, right = ([token for token in tokens(code) if token not in "()"] for code in (written, swapped))
            assert sorted(left) == sorted(right), (written, swapped)
            seen += 1
            differing += left != right
    assert seen > 50
    assert differing > 0.9 * seen  # `x - x` is the same either way


@pytest.mark.slow
def test_the_split_is_a_function_of_the_name(library: dict[str, Module]) -> None:
    held = {name for name, one in library.items() if one.held_out}
    assert 0.05 < len(held) / len(library) < 0.15
    known = ("heapq", "statistics", "json.decoder", "difflib", "tempfile")
    assert [name in held for name in known] == [False, False, False, True, True]
    assert held <= {one.name for one in modules(0.3) if one.held_out}
    assert not any(part in {"test", "site-packages"} for name in library for part in name.split("."))


@pytest.mark.slow
def test_a_seed_draws_the_same_operands(library: dict[str, Module]) -> None:
    draws = [list(swapped_operands(library["statistics"], random.Random(seed))) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
