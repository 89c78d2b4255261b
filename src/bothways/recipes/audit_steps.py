"""What the account says of one step beyond its totals: what it counted, what it knows of itself, and examples."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bothways.data.curation.reasons import in_words
from bothways.training.sections import Bars, Section, Stack, Table

_ROW, _SCORE = re.compile(r"row (.+)"), re.compile(r"score (.+)")
_ROWS_SHOWN = 100


def details(step: Mapping[str, Any]) -> list[Section]:
    """What a step counted and knows of itself; nothing where it has nothing to add."""
    title = f"{step['number']}. {readable(step['type'])}"
    counts: Mapping[str, int] = step["counts"]
    rows, scores = (_named(counts, pattern) for pattern in (_ROW, _SCORE))
    plain = {name: count for name, count in counts.items() if not (_ROW.fullmatch(name) or _SCORE.fullmatch(name))}
    sections: list[Section] = []
    known = [[name, value] for name, value in _flat(step["facts"])] + [[name, f"{count:,}"] for name, count in plain.items()]
    if known:
        sections.append(Table(f"{title}: figures", ["figure", "value"], known))
    if scores:
        values = list(scores.values())
        sections.append(Bars(f"{title}: scores", list(scores), [Stack("documents", values)], "documents"))
    if rows:
        sections.append(_hit_rows(title, rows))
    return sections


def examples(step: Mapping[str, Any]) -> list[Section]:
    """Documents that a step dropped or changed, folded away; none where it did neither."""
    rows: list[list[object]] = []
    for reason in step["reasons"]:
        for number, example in enumerate(reason["examples"]):
            of = f"{example['where']} (the copy of {example['kept']})" if "kept" in example else example["where"]
            rows.append(["" if number else in_words(reason["reason"], step["settings"]), of, example["text"]])
    title = f"Examples: {step['number']}. {readable(step['type'])}"
    return [Table(title, ["reason", "document", "text"], rows, folded=True)] if rows else []


def readable(name: str) -> str:
    """A name made of words; what is a phrase already, with a file's name in it perhaps, stays."""
    return name if " " in name else name.replace("_", " ")


def share(part: int, whole: int) -> str:
    """A percentage that shows small parts: 0.02 % is not 0.0 %."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    return f"{percent:.1f}\u00a0%" if percent >= 1 else f"{percent:.2g}\u00a0%"


def _hit_rows(title: str, rows: Mapping[str, int]) -> Table:
    ranked = sorted(rows.items(), key=lambda item: (-item[1], item[0]))
    note = f"{len(ranked):,} rows were found."
    if len(ranked) > _ROWS_SHOWN:
        note += f" The {_ROWS_SHOWN} in most documents are shown; audit.json has all."
    shown = [[name, f"{count:,}"] for name, count in ranked[:_ROWS_SHOWN]]
    return Table(f"{title}: evaluation rows found", ["row", "documents"], shown, note=note, folded=len(shown) > 12)


def _named(counts: Mapping[str, int], pattern: re.Pattern[str]) -> dict[str, int]:
    return {match[1]: count for name, count in counts.items() if (match := pattern.fullmatch(name))}


def _flat(facts: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Names and values, those of nested tables behind their path."""
    for name, value in facts.items():
        place = f"{path}, {name}" if path else readable(str(name))
        if isinstance(value, Mapping):
            yield from _flat(value, place)
        elif isinstance(value, list | tuple):
            yield place, ", ".join(map(str, value))
        elif isinstance(value, float):
            yield place, f"{value:.4g}"
        else:
            yield place, f"{value:,}" if isinstance(value, int) else str(value)
