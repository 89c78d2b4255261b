"""Carrying out a curation: into a folder that is whole or does not say it is, going on after a kill from what was done."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from bothways.config import from_json, to_json
from bothways.data.curation.duplicates import ExactDuplicates, NearDuplicates
from bothways.data.curation.executors import done, run_stages
from bothways.data.curation.finish import AUDIT, PLAN, Plan
from bothways.data.curation.manifest import NAME, CurationManifest, deciding, inputs_of, read_manifest, versions
from bothways.data.curation.recipe import Curation
from bothways.data.curation.sources import Part, cut, describe_files
from bothways.data.curation.stages import Stage, compile_stages
from bothways.data.curation.store import write_text
from bothways.data.curation.tasks import opened_step
from bothways.errors import InputError, MissingExtraError
from bothways.files import read_object

_WORK = ".work"
_SECONDS = 0.5

Say = Callable[[str], None]
# Told of work done: parts of stages, and bytes of the sources' files they stand for
Advance = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Curated:
    """A finished curation: its manifest, its account (audit.json), and where both lie."""

    manifest: CurationManifest
    audit: dict[str, Any]
    folder: Path


def curate(
    recipe: Curation, folder: Path, say: Say = lambda line: None, progress: Callable[[int], Any] | None = None
) -> Curated | None:
    """Carry out a curation in `folder`, or go on with it: shards in `data/`, `manifest.json`, `audit.json`.

    The same sources and recipe give the same bytes, whatever the executor and the number of its workers. Work that is done
    is not done again after a stop; the manifest appears last, when all is in its place.

    Args:
        say: told of each stage in a line.
        progress: given the number of pieces of work, a context whose value is told of each (`cli.output.progress`).

    Returns:
        None where the work was only submitted (Slurm).

    Raises:
        InputError: a source that cannot be read, a step that cannot be opened, a folder that holds something else.
        MissingExtraError: datatrove, or what a step needs, is not installed.
    """
    _check_installed()
    if (folder / NAME).exists():
        return _finished(recipe, folder, say)
    _check_folder(folder)
    parts = cut(recipe.sources, recipe.part_bytes)
    plan = _plan(recipe, parts)
    for line in describe_files(recipe.sources):
        say(line)
    work = folder / _WORK / _fingerprint(plan, recipe)
    _forget_others(folder / _WORK, work, say)
    write_text(work / PLAN, to_json(plan))
    stages = compile_stages(recipe, parts, work, folder)
    _say_resumed(stages, work, say)
    with _watched(stages, work, parts, progress):
        if not run_stages(stages, recipe.executor, work):
            say(f"{len(stages)} stages submitted; the output appears in {folder / 'data'} when {NAME} does")
            return None
    shutil.rmtree(folder / _WORK, ignore_errors=True)
    return _result(folder)


def _finished(recipe: Curation, folder: Path, say: Say) -> Curated:
    manifest = read_manifest(folder)
    if manifest.recipe != deciding(recipe) or manifest.inputs != inputs_of(recipe):
        raise InputError(f"{folder}: holds the output of another recipe or of other files; choose another folder, or remove it")
    shutil.rmtree(folder / _WORK, ignore_errors=True)
    say(f"{folder}: done already")
    return Curated(manifest, read_object(folder / AUDIT), folder)


def _result(folder: Path) -> Curated:
    manifest = from_json(CurationManifest, (folder / NAME).read_text(encoding="utf-8"), str(folder / NAME))
    return Curated(manifest, read_object(folder / AUDIT), folder)


def _check_installed() -> None:
    try:
        import datatrove.executor  # noqa: F401
    except ImportError:
        raise MissingExtraError("curation", "data") from None


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder")
    ours = any((folder / _WORK).glob(f"*/{PLAN}"))
    for path in folder.iterdir() if folder.exists() else ():
        if path.name != _WORK and not (ours and path.name in ("data", AUDIT)):
            raise InputError(f"{path}: exists, and no curation made it; choose another folder")


def _plan(recipe: Curation, parts: Sequence[Part]) -> Plan:
    """Opens every step, so that what cannot work is told before hours of work, and only once."""
    facts = []
    for step in recipe.steps:
        if isinstance(step, ExactDuplicates | NearDuplicates):
            step.open(recipe.seed)
            facts.append("{}")
        else:
            facts.append(json.dumps(dict(opened_step(step).facts), ensure_ascii=False))
    return Plan(recipe=deciding(recipe), parts=len(parts), inputs=inputs_of(recipe), versions=versions(), facts=tuple(facts))


def _fingerprint(plan: Plan, recipe: Curation) -> str:
    """What the work is: the recipe, the packages, and the files that are read, with the time each was last changed."""
    paths = [Path(one.path) for one in plan.inputs]
    for step in recipe.steps:
        if not isinstance(step, ExactDuplicates | NearDuplicates):
            paths += step.files()
    times = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    made_of = to_json(dataclasses.replace(plan, facts=())) + json.dumps(times)
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]


def _forget_others(place: Path, work: Path, say: Say) -> None:
    """Unfinished work on other sources, or by another recipe, cannot be gone on with."""
    for other in sorted(place.iterdir()) if place.is_dir() else ():
        if other != work:
            say("the sources or the recipe have changed since this was begun: beginning anew")
            shutil.rmtree(other, ignore_errors=True)


def _say_resumed(stages: Sequence[Stage], work: Path, say: Say) -> None:
    finished = sum(len(done(stage, work)) for stage in stages)
    if finished:
        say(f"going on: {finished:,} of {sum(stage.ranks for stage in stages):,} pieces of work are done")


@contextmanager
def _watched(stages: Sequence[Stage], work: Path, parts: Sequence[Part], progress: Callable[[int], Any] | None) -> Iterator[None]:
    """Tells of work done elsewhere, by looking for it."""
    if progress is None:
        yield
        return
    sizes = [sum(Path(unit.path).stat().st_size // unit.stride for unit in part) for part in parts]
    seen = {stage.name: set(done(stage, work)) for stage in stages}
    stop = Event()

    def look(advance: Advance) -> None:
        for stage in stages:
            for rank in set(done(stage, work)) - seen[stage.name]:
                seen[stage.name].add(rank)
                advance(1, sizes[rank] if stage.on_parts else 0)

    def watch(advance: Advance) -> None:
        while not stop.wait(_SECONDS):
            look(advance)

    total = sum(stage.ranks - len(seen[stage.name]) for stage in stages)
    with progress(total) as advance:
        thread = Thread(target=watch, args=(advance,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            look(advance)
