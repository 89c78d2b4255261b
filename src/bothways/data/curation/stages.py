"""A recipe as stages, each a pipeline that datatrove's executors can run, with as many ranks as it has parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothways.data.curation.duplicates import ExactDuplicates, NearDuplicates
from bothways.data.curation.finish import Finish
from bothways.data.curation.recipe import Curation
from bothways.data.curation.sources import Part
from bothways.data.curation.tasks import Apply, Drain, Join, Keep, MatchBand, Quiet, ReadSources, ReadStage, WriteShard

_REASONS = {"exact_duplicates": "the same text", "near_duplicates": "nearly the same text"}


@dataclass(frozen=True)
class Stage:
    """One stage: its name, which is its folder's, how many ranks it has, and its links.

    Attributes:
        on_parts: each rank is a part of the sources.
    """

    name: str
    ranks: int
    links: tuple[Any, ...]
    on_parts: bool = True


def compile_stages(recipe: Curation, parts: tuple[Part, ...], work: Path, out: Path) -> list[Stage]:
    """The stages of a recipe, to be run one after the other.

    Args:
        work: where stages leave things for each other.
        out: where the output appears in the end.
    """
    stages: list[Stage] = []
    tallies = work / "tallies"
    reader: Any = ReadSources(recipe.sources, parts, tallies / "0", recipe.unreadable == "drop")
    group: list[Any] = []
    first = 1
    for number, step in enumerate(recipe.steps, 1):
        if not isinstance(step, ExactDuplicates | NearDuplicates):
            group.append(step)
            continue
        place = work / f"{number}"
        folders = {name: place / name for name in ("documents", "signatures", "bands", "drops")}
        keep = Keep(folders["documents"], folders["signatures"], step, recipe.seed)
        stages.append(_stage(f"{number}-sign", len(parts), (reader, *_apply(group, first, tallies), keep), work))
        match = MatchBand(folders["signatures"], len(parts), folders["bands"], step.bands)
        stages.append(_stage(f"{number}-match", min(step.bands, len(parts)), (match,), work, on_parts=False))
        join = Join(folders["signatures"], len(parts), folders["bands"], step.bands, step.similarity, folders["drops"])
        stages.append(_stage(f"{number}-join", 1, (join,), work, on_parts=False))
        reader = ReadStage(folders["documents"], folders["drops"], _REASONS[step.type], number, tallies / f"{number}")
        group, first = [], number + 1
    write = WriteShard(recipe.output, work / "data", work / "shards")
    stages.append(_stage("write", len(parts), (reader, *_apply(group, first, tallies), write), work))
    stages.append(_stage("finish", 1, (Finish(work, out),), work, on_parts=False))
    return stages


def _apply(steps: Sequence[Any], first: int, tallies: Path) -> tuple[Apply, ...]:
    return (Apply(tuple(steps), first, tallies / f"{first}"),) if steps else ()


def _stage(name: str, ranks: int, links: tuple[Any, ...], work: Path, on_parts: bool = True) -> Stage:
    return Stage(name, ranks, (Quiet(), *links, Drain(work / "faults" / name)), on_parts)
