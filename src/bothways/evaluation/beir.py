"""Retrieval data in BEIR's layout: `corpus.jsonl(.gz)`, `queries.jsonl(.gz)`, `qrels/<split>.tsv`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bothways.data.rows import Csv, JsonLines, read_rows
from bothways.errors import InputError


@dataclass(frozen=True, eq=False)
class RetrievalData:
    """Documents and queries by id, and how relevant a document is to a query (absent: 0)."""

    name: str
    documents: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]


def read_beir(folder: str | Path, split: str = "test") -> RetrievalData:
    """Read a BEIR folder, with the queries that the split judges. A document's text is its title and text.

    Raises:
        InputError: a missing file or field, an id twice, a grade that is no integer, or a judgement of a
            query or document that is not there.
    """
    folder = Path(folder)
    documents = _texts(_file(folder, "corpus.jsonl"), ["_id", "title", "text"])
    queries = _texts(_file(folder, "queries.jsonl"), ["_id", "text"])
    qrels: dict[str, dict[str, int]] = {}
    for where, (query, document, grade) in _judgements(folder / "qrels" / f"{split}.tsv"):
        for kind, name, known in (("query", query, queries), ("document", document, documents)):
            if name not in known:
                raise InputError(f"{where}: no {kind} '{name}'; is this the right corpus?")
        if qrels.setdefault(query, {}).setdefault(document, grade) != grade:
            raise InputError(f"{where}: query '{query}' and document '{document}' are judged twice, and differently")
    return RetrievalData(folder.name, documents, {name: queries[name] for name in qrels}, qrels)


def _file(folder: Path, name: str) -> Path:
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    raise InputError(f"{folder}: no {name} or {name}.gz; a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/")


def _texts(file: Path, columns: list[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for where, (name, *parts) in read_rows(JsonLines(paths=(str(file),)), columns):
        if not all(isinstance(part, str) for part in (name, *parts)):
            raise InputError(f"{where}: {', '.join(columns)} must be texts")
        if name in texts:
            raise InputError(f"{where}: the id '{name}' is there twice")
        texts[name] = " ".join(part for part in parts if part)
    return texts


def _judgements(file: Path) -> Iterator[tuple[str, tuple[str, str, int]]]:
    if not file.is_file():
        there = ", ".join(sorted(path.stem for path in file.parent.glob("*.tsv"))) or "none"
        raise InputError(f"{file}: no such split; there are: {there}")
    table = Csv(paths=(str(file),), delimiter="\t", quotes="none")
    for where, (query, document, grade) in read_rows(table, ["query-id", "corpus-id", "score"]):
        try:
            yield where, (query, document, int(grade))
        except ValueError:
            raise InputError(f"{where}: the score '{grade}' is no integer") from None
