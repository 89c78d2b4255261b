"""The end of a curation: the account and the manifest, and the output put in its place, the manifest last."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothways.config import config, from_json, to_json
from bothways.data.curation.manifest import NAME, CurationManifest, InputFile
from bothways.data.curation.recipe import Curation
from bothways.data.curation.shards import ShardFile
from bothways.data.curation.store import write_text
from bothways.data.curation.tally import EXTRACTION, READ, Tally, read_tallies

PLAN = "plan.json"
AUDIT = "audit.json"


@config
class Plan:
    """What a curation is about to do, written before it begins.

    Attributes:
        parts: how many the sources are cut into.
        facts: of each step, what the account says once, as JSON.
    """

    recipe: Curation
    parts: int
    inputs: tuple[InputFile, ...]
    versions: tuple[tuple[str, str], ...]
    facts: tuple[str, ...]


@dataclass(frozen=True)
class Finish:
    """The last link: adds everything up, and puts the output in its place. May be interrupted anywhere, and done again."""

    work: Path
    out: Path

    def __call__(self, data: Any, rank: int, world_size: int) -> Iterator[Any]:
        ready = self.work / NAME
        if not ready.exists():
            plan = from_json(Plan, (self.work / PLAN).read_text(encoding="utf-8"), str(self.work / PLAN))
            manifest = _manifest(plan, self.work)
            write_text(self.work / AUDIT, json.dumps(audit(plan, manifest, self.work), indent=2, ensure_ascii=False) + "\n")
            write_text(ready, to_json(manifest))
        staged = self.work / "data"
        if staged.exists():
            for left in staged.glob(".partial.*"):  # by a killed process
                left.unlink()
            staged.replace(self.out / "data")
        else:  # nothing was kept, or it has been moved already
            (self.out / "data").mkdir(exist_ok=True)
        for name in (AUDIT, NAME):
            write_text(self.out / name, (self.work / name).read_text(encoding="utf-8"))
        yield from ()


def audit(plan: Plan, manifest: CurationManifest, work: Path) -> dict[str, Any]:
    """The account of a curation, as JSON can hold it: what each step saw, kept, changed and dropped, and why."""
    # not those that a killed process left half-written, under hidden names
    tallies = read_tallies(sorted((work / "tallies").glob("*/[!.]*.json")))
    steps = [*enumerate(plan.recipe.steps, 1)]
    entries = [
        {
            "number": number,
            "type": step.type,
            "settings": json.loads(to_json(step)),
            **tallies.get(number, Tally()).json(),
            "facts": json.loads(plan.facts[number - 1]),
        }
        for number, step in steps
    ]
    if EXTRACTION in tallies:
        pages = tallies[EXTRACTION].json()
        entries.insert(0, {"number": EXTRACTION, "type": "extraction", "settings": {}, **pages, "facts": {}})
    return {
        "format": 1,
        "recipe": json.loads(to_json(plan.recipe)),
        "input": {"files": len(plan.inputs), **tallies[READ].seen.json()},
        "output": {"documents": manifest.documents, "characters": manifest.characters, "files": len(manifest.shards)},
        "steps": entries,
    }


def _manifest(plan: Plan, work: Path) -> CurationManifest:
    notes = [work / "shards" / f"{part:06d}.json" for part in range(plan.parts)]
    texts = [(note, note.read_text(encoding="utf-8")) for note in notes]
    shards = tuple(from_json(ShardFile, text, str(note)) for note, text in texts if text != "null")
    return CurationManifest(
        documents=sum(shard.documents for shard in shards),
        characters=sum(shard.characters for shard in shards),
        shards=shards,
        inputs=plan.inputs,
        recipe=plan.recipe,
        versions=plan.versions,
    )
