"""The account of a curation, for people: a page of its own, a part of a run's report, and a section of a model's card.

All are written from `audit.json` alone (and from how long the work took, which that file leaves out so that it is the same
each time).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bothways.data.curation.reasons import in_words
from bothways.errors import InputError
from bothways.files import read_object
from bothways.model.card import add_section
from bothways.recipes.audit_steps import details, examples, readable, share
from bothways.training.report import duration
from bothways.training.sections import Bars, Code, Facts, Section, Stack, Table, render

NAME, PAGE = "audit.json", "audit.html"
Audit = Mapping[str, Any]


def read_audit(file: Path) -> Audit:
    """The account in a file.

    Raises:
        InputError: no such file, or none of ours.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file; `bothways curate` writes it beside the documents")
    audit = read_object(file)
    missing = [name for name in ("recipe", "input", "output", "steps") if name not in audit]
    if audit.get("format") != 1 or missing:
        raise InputError(f"{file}: no account of a curation{f' (it has no {missing[0]!r})' if missing else ''}; curate again")
    return audit


def find_audit(files: Iterable[Path]) -> Audit | None:
    """The account of the curation that wrote all of the files; None where they are not a curation's.

    It stands in the folder of the files or in the one above.
    """
    found = {_beside(folder) for folder in {file.parent for file in files}}
    place = found.pop() if len(found) == 1 else None
    return read_audit(place) if place else None


def write_audit(audit: Audit, file: Path, command: str = "", seconds: float | None = None) -> Path:
    """Write the page, one self-contained HTML file.

    Args:
        command: what repeats the work.
        seconds: how long it took.

    Raises:
        MissingExtraError: the extra `report` is not installed.
        InputError: the file cannot be written.
    """
    sections: list[Section] = [
        _figures(audit, seconds),
        *overview(audit),
        _reasons(audit),
        *(section for step in audit["steps"] for section in details(step)),
        *(section for step in audit["steps"] for section in examples(step)),
        Code("Settings", json.dumps(audit["recipe"], indent=2, ensure_ascii=False)),
    ]
    if command:
        sections.append(Code("To repeat", command, folded=False))
    return render("What became of the corpus", sections, file, subtitle=_in_a_line(audit))


def overview(audit: Audit) -> list[Section]:
    """What each step kept, changed and dropped, as two plots and a table; also for a run's report."""
    steps = audit["steps"]
    names = [f"{step['number']}. {readable(step['type'])}" for step in steps]
    rows = [
        [
            name,
            f"{step['seen']['documents']:,}",
            f"{step['kept']['documents']:,}",
            f"{step['changed']['documents']:,}",
            f"{step['dropped']['documents']:,}",
            share(step["dropped"]["documents"], step["seen"]["documents"]),
            f"{step['kept']['characters']:,}",
        ]
        for name, step in zip(names, steps, strict=True)
    ]
    columns = ["step", "seen", "kept", "of them changed", "dropped", "share dropped", "characters kept"]
    plots = [_bars(f"Curation, in {unit}", unit, names, steps) for unit in ("documents", "characters")] if steps else []
    return [*plots, Table("Step by step", columns, rows, note="Counted in documents, but for the last column.")]


def describe_corpus(audit: Audit, folder: Path) -> None:
    """Say in the card of a model folder what it learned from. No card, no section.

    Raises:
        InputError: the card cannot be read or written.
    """
    rows = [
        f"| {readable(step['type'])} | {step['seen']['documents']:,} | {step['changed']['documents']:,} "
        f"| {step['dropped']['documents']:,} | {_most_frequent(step)} |"
        for step in audit["steps"]
    ]
    table = "\n".join(["| step | documents seen | changed | dropped | mostly because |", "|---|---:|---:|---:|---|", *rows])
    add_section(folder, "corpus", f"## The corpus\n\n{_in_a_line(audit)}\n\n{table if rows else ''}")


def _beside(folder: Path) -> Path | None:
    for place in (folder, folder.parent):
        file = place / NAME
        if file.is_file():
            try:
                read_audit(file)
            except InputError:  # somebody's own file of that name
                continue
            return file
    return None


def _in_a_line(audit: Audit) -> str:
    before, after = audit["input"], audit["output"]
    return (
        f"{after['documents']:,} of {before['documents']:,} documents were kept "
        f"({share(after['documents'], before['documents'])}), "
        f"{after['characters']:,} of {before['characters']:,} characters ({share(after['characters'], before['characters'])})."
    )


def _figures(audit: Audit, seconds: float | None) -> Facts:
    before, after = audit["input"], audit["output"]
    items = [
        ("Documents read", f"{before['documents']:,}"),
        ("Documents kept", f"{after['documents']:,}"),
        ("Share kept", share(after["documents"], before["documents"])),
        ("Characters kept", f"{after['characters']:,}"),
        ("Share kept, in characters", share(after["characters"], before["characters"])),
        ("Files read", f"{before['files']:,}"),
    ]
    if seconds:
        items += [("Time", duration(seconds)), ("Characters per second", f"{before['characters'] / seconds:,.0f}")]
    return Facts("", items)


def _bars(title: str, unit: str, names: Sequence[str], steps: Sequence[Audit]) -> Bars:
    amounts = [{part: step[part][unit] for part in ("seen", "kept", "changed", "dropped")} for step in steps]
    parts = [
        Stack("kept as it was", [one["kept"] - one["changed"] for one in amounts], 0),
        Stack("changed", [one["changed"] for one in amounts], 2),
        Stack("dropped", [one["dropped"] for one in amounts], 1),
    ]
    return Bars(title, names, parts, unit)


def _reasons(audit: Audit) -> Table:
    rows = [
        [
            "" if number else f"{step['number']}. {readable(step['type'])}",
            in_words(reason["reason"], step["settings"]),
            reason["outcome"],
            f"{reason['documents']:,}",
            share(reason["documents"], step["seen"]["documents"]),
            f"{reason['characters']:,}",
        ]
        for step in audit["steps"]
        for number, reason in enumerate(step["reasons"])
    ]
    return Table("Why", ["step", "reason", "outcome", "documents", "share of seen", "characters"], rows)


def _most_frequent(step: Audit) -> str:
    return in_words(step["reasons"][0]["reason"], step["settings"]).replace("|", "\\|") if step["reasons"] else ""
