"""The links of curation's pipelines: each takes documents and gives documents, as datatrove's executors call them.

A link is a function of (documents, rank, number of ranks), and a rank is a part. All are generators: work is done when the
last link, `Drain`, asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothways.config import to_json
from bothways.data.curation.duplicates import ExactDuplicates, NearDuplicates
from bothways.data.curation.lifeline import die_with_parent
from bothways.data.curation.matching import join, match_band, read_drops
from bothways.data.curation.pages import Html, Page, Warc, open_extraction
from bothways.data.curation.shards import JsonlShards, ParquetShards, write_shard
from bothways.data.curation.sources import Part, read_unit
from bothways.data.curation.step import Opened, Step, Verdict
from bothways.data.curation.store import Item, Signatures, read_items, write_items, write_text
from bothways.data.curation.tally import EXTRACTION, READ, Tally, write_tallies
from bothways.data.source import Column, TextFiles
from bothways.errors import InputError, MissingExtraError

Items = Iterator[Item]


@dataclass(frozen=True)
class Quiet:
    """In whatever process unpacks it: datatrove logs nothing (`Drain` does), and no worker outlives its command."""

    def __reduce__(self) -> tuple[Callable[[], Quiet], tuple[()]]:
        return _quiet, ()

    def __call__(self, data: Items | None, rank: int, world_size: int) -> Items | None:
        return data


def _quiet() -> Quiet:
    from loguru import logger
    from multiprocess import parent_process  # type: ignore[attr-defined]

    logger.disable("datatrove")
    if (command := parent_process()) is not None:
        die_with_parent(command.is_alive)
    return Quiet()


@dataclass(frozen=True)
class ReadSources:
    """The documents of a part of the sources; those of web pages reduced to their text, and counted."""

    sources: tuple[TextFiles | Column | Html | Warc, ...]
    parts: tuple[Part, ...]
    tallies: Path

    def __call__(self, data: Items | None, rank: int, world_size: int) -> Items:
        read, tally = Tally(), Tally()
        for unit in self.parts[rank]:
            source = self.sources[unit.source]
            extract = open_extraction(source.favour) if isinstance(source, Html | Warc) else None
            for order, found in read_unit(source, unit):
                text: str | None = found.text
                read.seen.add(1, len(found.text))
                if isinstance(found, Page):
                    assert extract is not None
                    verdict = extract(found)
                    tally.note(found.text, verdict, found.where, order)
                    text = verdict.text
                if text is not None:
                    yield Item(text, found.where, order)
        write_text(
            self.tallies / f"read-{rank:06d}.json",
            write_tallies({READ: read} | ({EXTRACTION: tally} if tally.seen.documents else {})),
        )


@dataclass(frozen=True)
class ReadStage:
    """The documents that a part of the stage before left, without those that a step found to be duplicates."""

    documents: Path
    drops: Path
    reason: str
    number: int
    tallies: Path

    def __call__(self, data: Items | None, rank: int, world_size: int) -> Items:
        tally = Tally()
        drops = read_drops(self.drops / f"{rank:06d}.json")
        for row, item in enumerate(read_items(self.documents / f"{rank:06d}.arrow")):
            stays = drops.get(row)
            if stays is None:
                tally.note(item.text, Verdict(item.text), item.where, item.order)
                yield item
            else:
                tally.note(item.text, Verdict(None, reason=self.reason), item.where, item.order, kept=stays)
        write_text(self.tallies / f"read-{rank:06d}.json", write_tallies({self.number: tally}))


@dataclass(frozen=True)
class Apply:
    """Steps that look at one document at a time, the first of them the `first`-th of the recipe; each counts what it did."""

    steps: tuple[Any, ...]
    first: int
    tallies: Path

    def __call__(self, data: Items | None, rank: int, world_size: int) -> Items:
        assert data is not None
        opened = [opened_step(step) for step in self.steps]
        tallies = {self.first + place: Tally() for place in range(len(opened))}
        for item in data:
            text: str | None = item.text
            for number, step in enumerate(opened, self.first):
                verdict = step(text)
                tallies[number].note(text, verdict, item.where, item.order)
                text = verdict.text
                if text is None:
                    break
            if text is not None:
                yield Item(text, item.where, item.order)
        write_text(self.tallies / f"apply-{rank:06d}.json", write_tallies(tallies))


# Opened steps of this process, by their settings: a classifier or a language model is loaded once, not for every part
_OPEN: dict[str, Opened] = {}


def opened_step(step: Step) -> Opened:
    """The step, opened once in this process."""
    key = type(step).__name__ + to_json(step)
    if key not in _OPEN:
        _OPEN[key] = step.open()
    return _OPEN[key]


@dataclass(frozen=True)
class Keep:
    """Writes the documents for the next stage, and the signatures that duplicates are found by."""

    documents: Path
    signatures: Path
    step: ExactDuplicates | NearDuplicates
    seed: int

    def __call__(self, data: Items | None, rank: int, world_size: int) -> Items:
        assert data is not None
        sign = self.step.open(self.seed)
        signatures = Signatures(self.step.hashes, self.step.bands)

        def signed(items: Items) -> Items:
            for item in items:
                signatures.add(item, sign(item.text))
                yield item

        write_items(self.documents / f"{rank:06d}.arrow", signed(data))
        signatures.write(self.signatures / f"{rank:06d}.parquet")
        yield from ()


@dataclass(frozen=True)
class MatchBand:
    """Searches all signatures band by band: of so many bands, every `world_size`-th."""

    signatures: Path
    parts: int
    bands: Path
    count: int

    def __call__(self, data: Items | None, rank: int, world_size: int) -> Items:
        files = _files(self.signatures, self.parts, "parquet")
        for band, place in enumerate(_files(self.bands, self.count, "npy")):
            if band % world_size == rank:
                match_band(files, band, place)
        yield from ()


@dataclass(frozen=True)
class Join:
    """Joins the pairs of all bands into groups, and says which documents of each part go."""

    signatures: Path
    parts: int
    bands: Path
    count: int
    similarity: float
    drops: Path

    def __call__(self, data: Items | None, rank: int, world_size: int) -> Items:
        signatures = _files(self.signatures, self.parts, "parquet")
        join(signatures, _files(self.bands, self.count, "npy"), self.similarity, self.drops)
        yield from ()


@dataclass(frozen=True)
class WriteShard:
    """Writes the documents of a part as a shard of the output."""

    output: JsonlShards | ParquetShards
    data: Path
    notes: Path

    def __call__(self, data: Items | None, rank: int, world_size: int) -> Items:
        assert data is not None
        shard = write_shard(self.output, self.data / f"{rank:06d}", data)
        write_text(self.notes / f"{rank:06d}.json", "null" if shard is None else to_json(shard))
        yield from ()


@dataclass(frozen=True)
class Drain:
    """Asks for everything, and leaves a note of what went wrong, since executors elsewhere only say that something did."""

    faults: Path

    def __call__(self, data: Items | None, rank: int, world_size: int) -> None:
        note = self.faults / f"{rank:06d}.txt"
        note.unlink(missing_ok=True)
        try:
            for _ in data or ():
                pass
        except (InputError, MissingExtraError) as error:
            write_text(note, str(error))
            raise


def _files(folder: Path, count: int, kind: str) -> list[Path]:
    return [folder / f"{number:06d}.{kind}" for number in range(count)]
