"""CuBERT's tasks and its corpus, written from folders of Python.

corpus.jsonl            the files learned from, each as the text of its tokens, to pretrain on
TASK/train.jsonl        rows of a task (examples.py), and so dev.jsonl and test.jsonl
tasks.json              what was read, left out and made, and why
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt

from bothways.config import config, to_json
from bothways.data.code.examples import TASKS, Row, rows
from bothways.data.code.modules import Found, Function, Module, functions, read_modules
from bothways.data.code.splits import PARTS, Part, Split, divided, originals, unshared
from bothways.errors import InputError

MANIFEST = "tasks.json"
CORPUS = "corpus.jsonl"
Advance = Callable[[int, int], object]
Say = Callable[[str], object]


@config
class CodeTasks:
    """What to make of which sources.

    Attributes:
        left_out: names of folders whose files are not read.
        shortest, longest: tokens of Python's lexer that a function of a task has; others are left out, and counted.
        mutations: of a function that is learned from, at most so many bugs (or other docstrings) a task; one of those held out.
    """

    paths: Annotated[tuple[str, ...], Field(min_length=1)]
    left_out: tuple[str, ...] = ("site-packages", "dist-packages", "__pycache__", "node_modules")
    shortest: NonNegativeInt = 12
    longest: PositiveInt = 250
    mutations: PositiveInt = 3
    split: Split = Split()
    seed: int = 0


@dataclass
class Account:
    """What was read, left out and made.

    Attributes:
        refused: files that do not parse, with the reason.
        duplicate_files, duplicate_functions: left out as nearly the same as another one (`splits.originals`, and of functions
            also `splits.unshared`).
        empty: functions left out as nothing is in them beside a docstring, or they cannot be written anew (`modules.functions`).
        corpus: documents of the corpus.
        rows: of each task, by part.
    """

    files: dict[str, int]
    refused: dict[str, str]
    duplicate_files: int = 0
    functions: dict[str, int] = field(default_factory=dict)
    empty: int = 0
    too_short: int = 0
    too_long: int = 0
    duplicate_functions: int = 0
    unseen_exceptions: int = 0
    corpus: int = 0
    rows: dict[str, dict[str, int]] = field(default_factory=dict)


def build(tasks: CodeTasks, folder: Path, advance: Advance = lambda files, size: None, say: Say = lambda line: None) -> Account:
    """Write the corpus and the six tasks into `folder`, which is there and empty.

    Args:
        advance: told of each file that was read, and of its bytes.
        say: told of each stage in a line.

    Raises:
        InputError: nothing to read, fewer than three files that parse, no function that fits.
        MissingExtraError: finding near duplicates needs the extra `data`.
    """
    found = read_modules(tasks.paths, tasks.left_out, advance)
    say(f"{len(found.modules):,} files parse, {len(found.refused):,} do not; looking for near duplicates")
    parts = divided((module.name for module in found.modules), tasks.split)
    modules, account = _unlike(found, parts, tasks)
    _jsonl(folder / CORPUS, (_document(one) for one in modules["train"]))
    account.corpus = len(modules["train"])
    chosen = _functions(modules, tasks, account)
    for task in TASKS:
        say(f"{task}: of {sum(account.functions.values()):,} functions")
        made: dict[Part, list[Row]] = {part: list(rows(task, chosen[part], _most(part, tasks), tasks.seed)) for part in PARTS}
        if task == "exception":
            made, account.unseen_exceptions = _seen(made)
        account.rows[task] = {part: len(made[part]) for part in PARTS}
        for part in PARTS:
            _jsonl(folder / task / f"{part}.jsonl", made[part])
    manifest = {"tasks": json.loads(to_json(tasks)), **asdict(account)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return account


def _unlike(found: Found, parts: Mapping[str, Part], tasks: CodeTasks) -> tuple[dict[Part, list[Module]], Account]:
    """The modules of each part, without those that are nearly the same as one before them."""
    ordered = [module for part in PARTS for module in found.modules if parts[module.name] == part]
    texts, names = [module.text for module in ordered], [module.name for module in ordered]
    stay = [ordered[number] for number in originals(texts, names, tasks.split.duplicates, tasks.split.seed)]
    modules: dict[Part, list[Module]] = {part: [one for one in stay if parts[one.name] == part] for part in PARTS}
    account = Account({part: len(of) for part, of in modules.items()}, found.refused, len(ordered) - len(stay))
    return modules, account


def _functions(modules: Mapping[Part, Sequence[Module]], tasks: CodeTasks, account: Account) -> dict[Part, list[Function]]:
    """The functions of each part that fit, without those that `_alone` leaves out."""
    fitting: list[tuple[Part, Function]] = []

    def leave(name: str) -> None:
        account.empty += 1

    for part in PARTS:
        for function in (function for module in modules[part] for function in functions(module, leave)):
            if function.tokens < tasks.shortest:
                account.too_short += 1
            elif function.tokens > tasks.longest:
                account.too_long += 1
            else:
                fitting.append((part, function))
    stay = _alone(fitting, tasks.split)
    account.duplicate_functions = len(fitting) - len(stay)
    chosen: dict[Part, list[Function]] = {part: [one for of, one in stay if of == part] for part in PARTS}
    account.functions = {part: len(chosen[part]) for part in PARTS}
    if not chosen["train"]:
        sizes = f"{tasks.shortest} to {tasks.longest} tokens"
        raise InputError(f"{', '.join(tasks.paths)}: no function of {sizes} to learn from; give more sources")
    return chosen


def _alone(fitting: Sequence[tuple[Part, Function]], split: Split) -> list[tuple[Part, Function]]:
    """The functions that are neither nearly the same as one before them, nor one of an earlier part but for its own names."""
    texts, names = [one.source for _, one in fitting], [f"{one.module}:{one.name}" for _, one in fitting]
    left = [fitting[number] for number in originals(texts, names, split.duplicates, split.seed)]
    return [left[number] for number in unshared([one.source for _, one in left], [part for part, _ in left])]


def _seen(made: dict[Part, list[Row]]) -> tuple[dict[Part, list[Row]], int]:
    """The rows whose label the training rows have, and how many were left out."""
    known = Counter(row["label"] for row in made["train"])
    kept: dict[Part, list[Row]] = {part: [row for row in of if row["label"] in known] for part, of in made.items()}
    return kept, sum(len(of) - len(kept[part]) for part, of in made.items())


def _most(part: Part, tasks: CodeTasks) -> int:
    return tasks.mutations if part == "train" else 1


def _document(module: Module) -> dict[str, Any]:
    return {"text": module.flat, "path": module.name}


def _jsonl(path: Path, content: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
