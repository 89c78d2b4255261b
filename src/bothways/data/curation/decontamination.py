"""Keep the user's own evaluation sets out of what is learned from: documents that hold their rows, found by word n-grams."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import PositiveInt

from bothways.config import config
from bothways.data.curation.evaluation_index import EvaluationIndex, Match, covered
from bothways.data.curation.step import Verdict
from bothways.data.curation.words import WORD
from bothways.data.source import Column, Source, TextFiles, list_source, open_source, read_documents
from bothways.errors import InputError

_SHOWN = 60


@config
class EvaluationSet:
    """A name, and where its texts are. Of a table with several columns of text, each column is a set."""

    name: str
    source: Source


@config
class Decontamination:
    """Cut the rows of evaluation sets out of documents, or drop documents that hold any.

    A row is found where word n-grams of it, which a document shares, cover enough of its words (Tulu 3's rule: n = 8, a half;
    arXiv 2411.15124). Case, punctuation, accents and white space do not matter. A row of fewer than `ngram` words has to be
    there whole.

    Attributes:
        ngram: words of an n-gram.
        overlap: the least share of a row's words that must be covered.
        shortest: rows of fewer words ("Yes.") are everywhere, so they are left out, and counted.
        action: `remove` the words that were found and keep the rest, or `drop` the document.
    """

    type: Literal["decontamination"] = "decontamination"
    sets: Annotated[tuple[EvaluationSet, ...], pydantic.Field(min_length=1)]
    ngram: PositiveInt = 8
    overlap: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.5
    shortest: PositiveInt = 3
    action: Literal["remove", "drop"] = "remove"

    def __post_init__(self) -> None:
        if self.shortest > self.ngram:
            raise ValueError(f"shortest ({self.shortest}) is over ngram ({self.ngram}): lower it")
        names = [one.name for one in self.sets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two evaluation sets are named '{twice}': give each a name of its own")

    def files(self) -> tuple[Path, ...]:
        return tuple(file for one in self.sets for file in list_source(one.source).files)

    def open(self) -> Decontaminator:
        return Decontaminator(self)


@dataclass(eq=False)
class Decontaminator:
    """`Decontamination` at work.

    Raises:
        InputError: an evaluation set that cannot be read, or has no row long enough.
    """

    settings: Decontamination
    _index: EvaluationIndex = field(init=False)
    _where: list[str] = field(init=False, default_factory=list)
    _ends: list[int] = field(init=False)

    def __post_init__(self) -> None:
        counts: list[int] = []
        self._index = EvaluationIndex(self.settings.ngram, self.settings.shortest)
        self._index.fill(self._read(counts))
        self._ends = list(accumulate(counts))
        for one, facts in self.facts["sets"].items():
            if not facts["searched"]:
                raise InputError(
                    f"evaluation set '{one}': {facts['rows']} rows, none of {self.settings.shortest} words or more; "
                    f"check its column, or lower shortest"
                )

    @property
    def facts(self) -> Mapping[str, Any]:
        """Of each set how many rows there are, how many are searched for, and how many are too short for it."""
        sets, begin = {}, 0
        for one, end in zip(self.settings.sets, self._ends, strict=True):
            searched = int(self._index.indexed[begin:end].sum())
            sets[one.name] = {"rows": end - begin, "searched": searched, "too short": end - begin - searched}
            begin = end
        return {"sets": sets, "n-grams": self._index.count}

    def __call__(self, text: str) -> Verdict:
        hit = self._hit(self._index.find(text))
        if not hit:
            return Verdict(text)
        name = self.settings.sets[bisect_right(self._ends, min(hit))].name
        counts = {f"row {self._where[row]}": 1 for row in sorted(hit)}
        spans = _spans(text, (match for matches in hit.values() for match in matches))
        shown = text[max(spans[0][0] - _SHOWN, 0) : spans[0][1] + _SHOWN]
        if self.settings.action == "drop":
            return Verdict(None, f"holds rows of {name}", counts, shown)
        clean = _without(text, spans)
        counts["passages removed"] = len(spans)
        if not WORD.search(clean):
            return Verdict(None, f"nothing but rows of {name}", counts, shown)
        return Verdict(clean, f"rows of {name} removed", counts, shown)

    def _read(self, counts: list[int]) -> Iterable[str]:
        for one in self.settings.sets:
            begin = len(self._where)
            for document in read_documents(one.source):
                self._where.append(document.where)
                yield document.text
            counts.append(len(self._where) - begin)

    def _hit(self, matches: Sequence[Match]) -> dict[int, list[Match]]:
        """The matches of each row that enough of is covered."""
        rows: dict[int, list[Match]] = {}
        for match in matches:
            rows.setdefault(match.row, []).append(match)
        lengths = {row: int(self._index.lengths[row]) for row in rows}
        return {
            row: found for row, found in rows.items() if len(covered(found, lengths[row])) >= self.settings.overlap * lengths[row]
        }


def evaluation_sets(path: Path, columns: Sequence[str] = ("text",)) -> tuple[EvaluationSet, ...]:
    """The sets at a path: a text file's lines, or these columns of a table, each a set of its own.

    Raises:
        InputError: nothing there, or a suffix that says neither text nor table.
    """
    first = open_source(path, columns[0], "line")
    if isinstance(first, TextFiles):
        return (EvaluationSet(name=path.name, source=first),)
    return tuple(
        EvaluationSet(
            name=path.name if len(columns) == 1 else f"{path.name} {column}", source=Column(table=first.table, column=column)
        )
        for column in columns
    )


def _spans(text: str, matches: Iterable[Match]) -> list[tuple[int, int]]:
    """Where the matched words stand in the text, joined where they touch, with the punctuation that ends them."""
    places = [match.span() for match in WORD.finditer(text)]
    spans: list[tuple[int, int]] = []
    for at, behind in sorted({(match.at, match.at + match.size) for match in matches}):
        begin, end = places[at][0], places[behind - 1][1]
        limit = places[behind][0] if behind < len(places) else len(text)
        while end < limit and not text[end].isspace():
            end += 1
        if spans and begin <= spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((begin, end))
    return spans


def _without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text without these spans; what stood on both sides of one is not run together."""
    parts: list[str] = []
    done = 0
    for begin, end in [*spans, (len(text), len(text))]:
        part = text[done:begin].rstrip(" ") if begin < len(text) else text[done:]
        apart = parts and part and not parts[-1][-1].isspace() and not part[0].isspace()
        parts += [" "] if apart else []
        parts += [part] if part else []
        done = end
    return "".join(parts).strip(" ")
