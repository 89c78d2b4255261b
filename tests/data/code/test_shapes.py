"""Which functions have one shape: those that differ in their own names alone."""

from __future__ import annotations

import pytest

from bothways.data.code.shapes import shape

SAME = [
    ("def f(a, b): return a - b", "def g(x, y): return x - y"),
    ("def f(a): return f(a - 1)", "def g(b): return g(b - 1)"),
    ("def f(a, *b, c=1, **d): return len(b) + c", "def f(one, *two, three=1, **four): return len(two) + three"),
    ("async def f(a):\n async with a as b: return [c for c in b]", "async def f(b):\n async with b as c: return [a for a in c]"),
    ("def f():\n try: g()\n except E as a: return a", "def f():\n try: g()\n except E as b: return b"),
    ("def f():\n import os as a\n return a.sep", "def f():\n import os as b\n return b.sep"),
    (
        "def f():\n if 1:\n  if 1: n = 0\n def g():\n  nonlocal n\n  n += 1",
        "def f():\n if 1:\n  if 1: m = 0\n def h():\n  nonlocal m\n  m += 1",
    ),
    (
        "def f(a):\n match a:\n  case [*b]: return b\n  case {**c}: return c",
        "def f(c):\n match c:\n  case [*a]: return a\n  case {**b}: return b",
    ),
    ("def f(a): return (b := a) + b", "def f(b): return (a := b) + a"),
    ("def f(a): return '\\ud800'", "def f(b): return '\\ud800'"),
]
OTHER = [
    ("def f(a, b): return a - b", "def f(a, b): return b - a"),
    ("def f(a, b): return a - b", "def f(a, b): return a - a"),
    ("def f(a): return min(a)", "def f(a): return max(a)"),
    ("def f(a): return a.b", "def f(a): return a.c"),
    ("def f(a): return g(b=a)", "def f(a): return g(c=a)"),
    ("def f(a): return 1", "def f(a): return True"),
    ("def f(a: int): return a", "def f(a: str): return a"),
    ("def f():\n global a\n a = 1", "def f():\n global b\n b = 1"),
    ("def f():\n global a, b\n a, b = 1, 2", "def f():\n global a, b\n b, a = 1, 2"),
    ("def f():\n import a\n return a", "def f():\n import b\n return b"),
    ("def f(a): return f(a)", "def f(a): return g(a)"),
    ("def f(a): yield a", "async def f(a): yield a"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_names_of_its_own_are_all_the_same(one: str, other: str) -> None:
    assert shape(one) == shape(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_all_else_tells_functions_apart(one: str, other: str) -> None:
    assert shape(one) != shape(other)
