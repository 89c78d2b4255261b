"""The six tasks built from files: every row of them is looked at."""

from __future__ import annotations

import ast
import json
import sysconfig
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bothways.data.code import lexing, modules
from bothways.data.code.bugs import differing, from_info, mended
from bothways.data.code.build import Account, CodeTasks, build
from bothways.data.code.examples import CORRECT, EXCEPTIONS, HOLE, TASKS
from bothways.data.code.lexing import lex, to_source, unescape
from bothways.data.code.pointers import read_pointed
from bothways.data.code.shapes import shape
from bothways.data.code.splits import PARTS, Split, divided
from bothways.data.curation.duplicates import shingles
from bothways.data.rows import JsonLines
from bothways.errors import InputError

pytest.importorskip("rensa")

LIBRARY = Path(sysconfig.get_path("stdlib"))
# Real code, and so little of it that all that is built can be looked at
SOURCES = ("json", "wsgiref", "importlib/metadata")
BUGS = ("variable_misuse", "swapped_operands", "wrong_binary_operator")
LONGEST = 150
Rows = dict[str, dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("code")


@pytest.fixture(scope="module")
def account(folder: Path) -> Account:
    paths = tuple(str(LIBRARY / name) for name in SOURCES if (LIBRARY / name).exists())
    return build(CodeTasks(paths=paths, longest=LONGEST, mutations=2, split=Split(dev=0.15, test=0.15)), folder)


@pytest.fixture(scope="module")
def rows(folder: Path, account: Account) -> Rows:
    def read(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]

    return {task: {part: read(folder / task / f"{part}.jsonl") for part in PARTS} for task in TASKS}


def every(rows: Rows, task: str) -> list[dict[str, Any]]:
    return [row for part in PARTS for row in rows[task][part]]


def function(row: dict[str, Any]) -> ast.AST:
    (found,) = ast.parse(to_source(row["function"])).body
    return found


def in_sources(named: dict[str, str]) -> set[tuple[str | None, str]]:
    """The docstrings and the trees without them of what has this name in this file: two, where a property can be set."""
    (path,) = {path for name in SOURCES if (path := (LIBRARY / name).parent / named["file"]).exists()}
    level: list[Any] = [ast.parse(path.read_text(encoding="utf-8"))]
    for part in named["name"].split("."):
        level = [node for above in level for node in above.body if getattr(node, "name", None) == part]
    found = set()
    for node in level:
        docstring = ast.get_docstring(node)
        node.body = node.body[docstring is not None :]
        found.add((docstring, ast.dump(node)))
    return found


def is_undone(original: dict[str, Any], buggy: dict[str, Any]) -> bool:
    """Whether one node differs, and `info` gives back the original."""
    mend = mended(to_source(buggy["function"]), from_info(buggy["info"]))
    return differing(function(original), function(buggy)) == 1 and mend == ast.unparse(function(original))


def test_there_is_enough_to_look_at(account: Account, rows: Rows) -> None:
    assert {task for task in TASKS if len(rows[task]["train"]) < 20} <= {"exception"}
    assert rows["exception"]["train"]
    assert {task: {part: len(rows[task][part]) for part in PARTS} for task in TASKS} == account.rows
    assert account.too_long > 0


def test_every_function_parses_and_is_short_enough(rows: Rows) -> None:
    for task in TASKS:
        for row in every(rows, task):
            tree = function(row)
            assert isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef)
            assert ast.get_docstring(tree) is None
            if "kind" not in row["info"]:
                assert len(lex(to_source(row["function"]))) <= LONGEST


@pytest.mark.parametrize("task", BUGS)
def test_every_bug_is_one_node_and_is_mended(rows: Rows, task: str) -> None:
    """Reference checks 12.(3) and D3: half of the rows, each behind its original, which `info` gives back."""
    found = every(rows, task)
    assert len(found) == 2 * sum(row["label"] != CORRECT for row in found) > 0
    for original, buggy in zip(found[::2], found[1::2], strict=True):
        assert (original["label"], buggy["info"]["kind"]) == (CORRECT, task)
        assert is_undone(original, buggy)
        assert buggy["info"]["before"] != buggy["info"]["after"]


def test_a_misused_variable_is_one_of_the_function(rows: Rows) -> None:
    """Reference check 12.(3): the replacement is in scope, and another name."""
    for row in every(rows, "variable_misuse"):
        if row["label"] != CORRECT:
            names = {
                node.id for node in ast.walk(function(row)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            }
            names |= {node.arg for node in ast.walk(function(row)) if isinstance(node, ast.arg)}
            assert row["info"]["after"] in names


def test_docstrings(rows: Rows) -> None:
    """A function behind its own docstring, and behind that of another one, as both are in the sources."""
    found = every(rows, "function_docstring")
    assert Counter(row["label"] for row in found) == {CORRECT: len(found) // 2, "Incorrect": len(found) // 2}
    for own, other in zip(found[::2], found[1::2], strict=True):
        assert (own["label"], other["label"]) == (CORRECT, "Incorrect")
        assert (unescape(own["docstring"]), ast.dump(function(own))) in in_sources(own["info"])
        assert unescape(other["docstring"]) in {docstring for docstring, _ in in_sources(other["info"]["docstring_of"])}
        assert own["function"] == other["function"]
        assert own["docstring"] != other["docstring"]
        assert "\n" not in own["docstring"]
    said = {unescape(row["docstring"]) for row in found[::2]}
    for row in found[1::2]:
        assert unescape(row["docstring"]) in said  # of a function of the same part, which is in the task


def test_exceptions(rows: Rows) -> None:
    """There is one hole, and the label in it is what the sources have there."""
    known = {row["label"] for row in rows["exception"]["train"]}
    for row in every(rows, "exception"):
        assert row["label"] in known & set(EXCEPTIONS)
        tree = ast.parse(to_source(row["function"]))
        node = list(ast.walk(tree))[row["info"]["node"]]
        assert isinstance(node, ast.ExceptHandler)
        assert isinstance(node.type, ast.Name)
        assert node.type.id == HOLE
        assert sum(isinstance(one, ast.Name) and one.id == HOLE for one in ast.walk(function(row))) == 1
        node.type.id = row["label"]
        assert ast.dump(tree.body[0]) in {dumped for _, dumped in in_sources(row["info"])}


def test_places_of_localisation_and_repair(rows: Rows, folder: Path) -> None:
    """Reference checks 12.(2) and D3: pointers at valid candidates; nothing to repair without a bug."""
    found = every(rows, "variable_misuse_repair")
    for original, buggy in zip(found[::2], found[1::2], strict=True):
        assert (original["error"], original["targets"]) == (None, [])
        info, text = buggy["info"], buggy["function"]
        assert text.startswith(info["after"] + " ", buggy["error"]) or text.startswith(info["after"] + "\n", buggy["error"])
        assert buggy["targets"]
        for place in buggy["targets"]:
            assert text.startswith(info["before"], place)
        assert {buggy["error"], *buggy["targets"]} <= set(buggy["candidates"])
        assert len(buggy["candidates"]) == len(original["candidates"])
        assert is_undone(original, buggy)
    assert len(read_pointed(JsonLines(paths=(str(folder / "variable_misuse_repair" / "train.jsonl"),)))) > 0


def test_a_file_is_of_one_part(rows: Rows, folder: Path) -> None:
    """Reference checks 12.(5) and D3, and the pitfall of leakage by example."""
    files = {part: {row["info"]["file"] for task in TASKS for row in rows[task][part]} for part in PARTS}
    assert not files["train"] & files["dev"]
    assert not files["train"] & files["test"]
    assert not files["dev"] & files["test"]
    assert all(files.values())
    read = {json.loads(line)["path"] for line in (folder / "corpus.jsonl").read_text().split("\n") if line}
    assert files["train"] <= read
    assert not read & (files["dev"] | files["test"])


def test_no_function_is_nearly_one_of_another_part(rows: Rows) -> None:
    """Reference checks 12.(5) and D3: not the same tree but for names, and by all their runs of three words, not alike."""
    of: dict[str, list[set[str]]] = {part: [] for part in PARTS}
    trees: dict[str, set[str]] = {part: set() for part in PARTS}
    shapes: dict[str, set[bytes]] = {part: set() for part in PARTS}
    for part in PARTS:
        for row in rows["variable_misuse"][part][::2]:
            source = to_source(row["function"])
            of[part].append(set(shingles(source, 3)))
            trees[part].add(ast.dump(ast.parse(source)))
            shapes[part].add(shape(source))
    for part, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not trees[part] & trees[other]
        assert not shapes[part] & shapes[other]
        for mine in of[part]:
            for theirs in of[other]:
                assert len(mine & theirs) < 0.8 * len(mine | theirs)


def test_planted_copies_go_from_what_is_learned(tmp_path: Path) -> None:
    """Out of training stay a file and a function that are nearly held-out ones; the file is not in the corpus, either.

    So do short functions of a held-out one's body under another name, and with other names for what is in it; two that are
    learned from may be alike in this way.
    """
    sources = tmp_path / "sources"
    sources.mkdir()

    def body(name: str, words: int = 40) -> str:
        of = ord(name)
        return "".join(f"    {name}_{i} = {name}_{i - 1} + arg if arg < {of} else arg\n" for i in range(1, words))

    parts = divided([f"sources/{one}.py" for one in "abcdefgh"], Split())
    by_part = {part: [Path(name).stem for name, of in parts.items() if of == part] for part in PARTS}
    for one in "abcdefgh":
        (sources / f"{one}.py").write_text(f"def f_{one}(arg, {one}_0):\n{body(one, 8)}    return arg\n" + f"x_{one} = 1\n" * 30)
    held, late = by_part["test"][0], by_part["dev"][0]
    learned, other, renamed, *_ = by_part["train"]
    text = (sources / f"{held}.py").read_text()
    (sources / f"{learned}.py").write_text(text + "y = 2\n")
    (sources / f"{other}.py").write_text(text.split("x_")[0] + "".join(f"q_{i} = call_{i}({i}, z_{i})\n" for i in range(99)))
    planted = {
        held: "def short(left, right):\n    sum = left + right\n    return sum\n",
        renamed: "def titled(left, right):\n    sum = left + right\n    return sum\n"
        "def named(one, two):\n    both = one + two\n    return both\n"
        "def swapped(one, two):\n    both = two + one\n    return both\n"
        "def again(here, there):\n    all = there + here\n    return all\n",
        late: "def dated(here, there):\n    all = here + there\n    return all\n",
    }
    for name, lines in planted.items():
        with (sources / f"{name}.py").open("a") as file:
            file.write(lines)
    out = tmp_path / "out"
    out.mkdir()
    account = build(CodeTasks(paths=(str(sources),), longest=2000), out)
    assert account.duplicate_files == 1
    assert account.duplicate_functions == 4
    corpus = [json.loads(line)["path"] for line in (out / "corpus.jsonl").read_text().split("\n") if line]
    assert f"sources/{learned}.py" not in corpus
    rows = (out / "variable_misuse" / "train.jsonl").read_text()
    assert f"f_{held} " not in rows
    assert " swapped " in rows
    assert " again " in rows
    assert " titled " not in rows
    assert " named " not in rows
    assert " dated " not in (out / "variable_misuse" / "dev.jsonl").read_text()
    assert " short " in (out / "variable_misuse" / "test.jsonl").read_text()


def test_what_does_not_parse_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in "abcd":
        (sources / f"{name}.py").write_text(
            f"def f(one, two_{name}):\n    {name} = one - two_{name} * {ord(name)}\n    return {name} if one else two_{name}\n"
        )
    (sources / "print.py").write_text("print 'hello'\n")
    (sources / "bytes.py").write_bytes(b"x = '\xff'\n")
    (sources / "empty.py").write_text("")
    (sources / "comment.py").write_text("# nothing\n")
    monkeypatch.setattr(modules, "to_text", lambda text: lexing.to_text(text.replace("two_c", "$")))  # a name of an odd sign
    out = tmp_path / "out"
    out.mkdir()
    account = build(CodeTasks(paths=(str(sources),)), out)
    assert account.refused.keys() == {f"sources/{one}.py" for one in ("print", "bytes", "comment", "c")}
    assert account.refused["sources/c.py"].endswith("is no token of Python")
    assert account.refused["sources/comment.py"] == "no code in it"
    assert account.refused["sources/print.py"].startswith("line 1: Missing parentheses")
    assert "not utf-8 at byte 5" in account.refused["sources/bytes.py"]
    assert json.loads((out / "tasks.json").read_text())["refused"] == account.refused


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "nothing to read"),
        ({"a.txt": "text"}, "nothing to read"),
        ({"a.py": "print 'x'"}, "no file of Python that parses .a.py|no file of Python that parses"),
        ({"a.py": "x = 1", "b.py": "y = 2"}, "2 files of Python: too few"),
        ({"a.py": "x = 1", "b.py": "y = 2", "c.py": "z = 3"}, "no function of 12 to 250 tokens"),
    ],
)
def test_what_nothing_can_be_built_from_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    sources, out = tmp_path / "sources", tmp_path / "out"
    sources.mkdir()
    out.mkdir()
    for name, text in files.items():
        (sources / name).write_text(text + "\n")
    with pytest.raises(InputError, match=message):
        build(CodeTasks(paths=(str(sources),)), out)


def test_the_same_rows_every_time(tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        out = tmp_path / name
        out.mkdir()
        build(CodeTasks(paths=(str(LIBRARY / "json"),)), out)
        written.append({file.relative_to(out): file.read_bytes() for file in sorted(out.rglob("*.jsonl"))})
    assert written[0] == written[1]


def test_what_cannot_be_learned_from_is_counted(tmp_path: Path) -> None:
    """A function of a docstring alone, and one that is too short; three files, of which each part has one."""
    for number, name in enumerate(("first", "second", "third")):
        body = f"def {name}(left, right):\n    if left > {number}:\n        return right - left\n    return {name}(right, left)\n"
        nothing = f'def {name}_nothing():\n    "To be had."\n'
        (tmp_path / f"{name}.py").write_text(f"{body}\n{nothing}\ndef short(): pass\n")
    (tmp_path / "out").mkdir()
    found = build(CodeTasks(paths=(str(tmp_path),), shortest=15), tmp_path / "out")
    assert (found.empty, found.too_short, found.too_long, sum(found.functions.values())) == (3, 3, 0, 3)
