"""Variables, operators and operands put wrong: one node, in scope, and back again."""

from __future__ import annotations

import ast
import random

import pytest

from bothways.data.code.bugs import BugKind, Change, bugs, differing, mended
from bothways.data.code.scopes import variables

SOURCE = """def f(first, *rest, key=None):
    global counted
    counted = 0
    total = first - len(rest)
    for one in rest:
        if one in rest and one is not key:
            total += [total for total in one][0] % 3
    later = f'{first}'
    return total < key or '%s' % later - total - total
"""


def function(source: str = SOURCE) -> ast.FunctionDef:
    (found,) = ast.parse(source).body
    assert isinstance(found, ast.FunctionDef)
    return found


def all_bugs(kind: BugKind, source: str = SOURCE, seed: int = 0) -> list[tuple[str, Change]]:
    return [(one.source, one.change) for one in bugs(source, kind, 1000, random.Random(seed))]


def test_the_variables_of_a_function() -> None:
    """Not a global, not a comprehension's own, not what stands in an f-string."""
    found = variables(function())
    assert set(found.since) == {"first", "rest", "key", "total", "one", "later"}
    assert found.places["rest"] == [(1, 14), (4, 24), (5, 15), (6, 18)]
    assert found.places["first"] == [(1, 6), (4, 12)]
    assert len(found.places["total"]) == 5
    assert (6, 11) in found.uses
    assert (4, 4) not in found.uses


def test_a_variable_is_exchanged_for_one_that_has_a_value() -> None:
    (use,) = (name for place, name in variables(function()).uses.items() if place == (5, 15))
    assert variables(function()).others(use) == ["first", "key", "total"]  # not yet one, nor later
    uses = variables(function("def f(a, b):\n    c = a\n    return b\n"))
    assert [uses.others(name) for name in uses.uses.values()] == [["b"], ["a", "c"]]
    exchanged = all_bugs("variable_misuse")
    assert len(exchanged) == len(variables(function()).uses)
    nodes, known = list(ast.walk(ast.parse(SOURCE))), variables(function())
    for change in [change for seed in range(9) for _, change in all_bugs("variable_misuse", seed=seed)]:
        use = nodes[change.node]
        assert isinstance(use, ast.Name)
        assert use.id == change.before != change.after
        assert change.after in known.others(use)


def test_operands_that_are_swapped() -> None:
    """An order that matters, of two that differ; not a text on the left of %, not equal operands."""
    found = sorted(change.before for _, change in all_bugs("swapped_operands"))
    assert found == ["'%s' % later", "'%s' % later - total", "[total for total in one][0]", "first", "one", "total"]
    assert all_bugs("swapped_operands", "def f(a):\n    return a - a\n") == []
    ((swapped, _),) = all_bugs("swapped_operands", "def f(a, b):\n    return a - (b + 1)\n")
    assert swapped == "def f(a, b):\n    return b + 1 - a"


def test_operators_change_within_their_kind() -> None:
    kinds = [{"Add", "Sub", "Mult", "Div", "FloorDiv", "Mod"}, {"And", "Or"}]
    comparisons = {"Eq", "NotEq", "Lt", "LtE", "Gt", "GtE", "Is", "IsNot", "In", "NotIn"}
    seen = set()
    for seed in range(20):
        for _, change in all_bugs("wrong_binary_operator", seed=seed):
            (group,) = (group for group in (*kinds, comparisons) if change.before in group)
            assert change.after in group - {change.before}
            seen.add((change.before, change.after))
    assert {("IsNot", "Is"), ("And", "Or"), ("Or", "And")} <= seen
    chained = "def f(a):\n    return 0 <= a < 9\n"
    made = all_bugs("wrong_binary_operator", chained)
    assert [differing(function(source), function(chained)) for source, _ in made] == [1, 1]
    assert {change.part for _, change in made} == {0, 1}


@pytest.mark.parametrize("kind", ["variable_misuse", "swapped_operands", "wrong_binary_operator"])
def test_a_bug_is_one_node_and_is_mended(kind: BugKind) -> None:
    made = all_bugs(kind)
    assert len({source for source, _ in made}) == len(made) > 4
    for source, change in made:
        assert differing(function(source), function()) == 1
        assert mended(source, change) == SOURCE.rstrip()


def test_at_most_so_many_and_by_the_seed() -> None:
    first, again, other = ([one.change for one in bugs(SOURCE, "variable_misuse", 3, random.Random(seed))] for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) == 3


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a - b", "a - b", 0),
        ("a - b", "b - a", 1),
        ("a - b", "a + b", 1),
        ("a - b", "b + a", 3),
        ("f(a, b)", "f(b, a)", 2),
        ("a in b", "b in a", 1),
        ("a < b", "a > b", 1),
        ("x - (a - b)", "x - (b - a)", 1),
        ("f(a)", "f(a, b)", 1),
        ("1", "1.0", 1),
    ],
)
def test_counting_the_nodes_that_differ(one: str, other: str, expected: int) -> None:
    assert differing(ast.parse(one), ast.parse(other)) == expected
