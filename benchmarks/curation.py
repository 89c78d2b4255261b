"""Curation on real text: what is found of duplicates planted in novels, what is dropped beside them, and how fast it goes.

Documents are runs of paragraphs of `shared/data/text/novels-eng.jsonl.gz`. Among them are planted exact copies, half of
them with other white space, and near copies: one word in a hundred, fifty or twenty replaced, or a paragraph removed.
Whatever else is dropped as a duplicate is listed with its true similarity, for a reader to judge.

    python benchmarks/curation.py --documents 10000
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness import record

from bothways.data.curation.duplicates import ExactDuplicates, NearDuplicates, shingles
from bothways.data.curation.recipe import Curation, CurationStep, Local, usual_steps
from bothways.data.curation.run import Curated, curate
from bothways.data.rows import JsonLines, open_table, read_rows
from bothways.data.source import Column

SHARED = Path(__file__).resolve().parents[2] / "shared"
Edit = Callable[[str, random.Random], str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--planted", type=int, default=200, help="of each kind")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    documents = passages(options.shared, options.documents)
    with tempfile.TemporaryDirectory(prefix="bothways-curation-") as folder:
        place = Path(folder)
        planted = plant(documents, options.planted, place / "corpus.jsonl")
        source = Column(table=JsonLines(paths=(str(place / "corpus.jsonl"),)))
        runs = {}
        for name, steps in (("duplicates", (ExactDuplicates(), NearDuplicates())), ("all", usual_steps("eng"))):
            runs[name] = timed(source, steps, options.workers, place / name)
        found = judged(place / "corpus.jsonl", place / "duplicates", planted, len(documents))
    result = {"documents": len(documents), "planted": {kind: len(rows) for kind, rows in planted.items()}, **found}
    result["runs"] = {name: one for name, (_, one) in runs.items()}
    result["megabytes_per_core_second"] = speeds(documents[:300])
    print(json.dumps(result, indent=2))
    print(record("curation", result))


def passages(shared: Path, count: int, characters: int = 1500) -> list[str]:
    """So many runs of paragraphs of at least so many characters, in the order of the novels."""
    found: list[str] = []
    with gzip.open(shared / "data/text/novels-eng.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            gathered: list[str] = []
            for paragraph in json.loads(line)["text"].split("\n"):
                gathered.append(paragraph)
                if sum(map(len, gathered)) >= characters:
                    found.append("\n".join(gathered))
                    gathered = []
    step = max(len(found) // count, 1)
    return found[::step][:count]


def replaced(share: float) -> Edit:
    """Puts another word in the place of a share of the words."""

    def edit(text: str, draw: random.Random) -> str:
        words = text.split(" ")
        for place in draw.sample(range(len(words)), max(round(share * len(words)), 1)):
            words[place] = draw.choice(words)[::-1]
        return " ".join(words)

    return edit


def shortened(text: str, draw: random.Random) -> str:
    """Without its shortest paragraph."""
    lines = text.split("\n")
    lines.remove(min((line for line in lines if line.strip()), key=len))
    return "\n".join(lines)


KINDS: dict[str, Edit] = {
    "exact": lambda text, draw: text,
    "white space": lambda text, draw: "  " + text.replace("\n", " \n\n"),
    "1 word in 100": replaced(0.01),
    "1 word in 50": replaced(0.02),
    "1 word in 20": replaced(0.05),
    "a paragraph less": shortened,
}


def plant(documents: Sequence[str], each: int, place: Path) -> dict[str, set[int]]:
    """Write the documents and, behind them, the copies; the lines (from 1) that hold copies of each kind."""
    draw = random.Random(0)
    long = [text for text in documents if text.count("\n") > 2]
    rows = list(documents)
    planted: dict[str, set[int]] = {}
    for (kind, edit), texts in zip(KINDS.items(), chosen(long, each, draw), strict=True):
        planted[kind] = set(range(len(rows) + 1, len(rows) + 1 + each))
        rows += [edit(text, draw) for text in texts]
    place.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows), encoding="utf-8")
    return planted


def chosen(texts: Sequence[str], each: int, draw: random.Random) -> list[list[str]]:
    """For each kind, so many texts, none of them twice."""
    drawn = draw.sample(texts, each * len(KINDS))
    return [drawn[kind * each : (kind + 1) * each] for kind in range(len(KINDS))]


def timed(source: Column, steps: Sequence[CurationStep], workers: int, out: Path) -> tuple[Curated, dict[str, Any]]:
    """A curation, with its seconds and rates; run a second time, it must write the same bytes."""
    recipe = Curation(sources=(source,), steps=tuple(steps), executor=Local(workers=workers), part_bytes=1 << 22)
    begin = time.perf_counter()
    done = curate(recipe, out)
    seconds = time.perf_counter() - begin
    again = curate(recipe, out.with_name(f"{out.name}-again"))
    assert done is not None
    assert again is not None
    assert [one.sha256 for one in done.manifest.shards] == [one.sha256 for one in again.manifest.shards]
    assert done.audit == again.audit
    read = done.audit["input"]
    steps_kept = {f"{step['number']} {step['type']}": step["kept"]["documents"] for step in done.audit["steps"]}
    rates = {"documents": round(read["documents"] / seconds, 1), "megabytes": round(read["characters"] / 1e6 / seconds, 3)}
    return done, {"seconds": round(seconds, 1), "workers": workers, "per_second": rates, "kept": steps_kept}


def speeds(documents: Sequence[str]) -> dict[str, float]:
    """Million characters that each step takes a second of one core, its loading left out."""
    found = {}
    for step in usual_steps("eng"):
        opened = step.open(0) if isinstance(step, ExactDuplicates | NearDuplicates) else step.open()
        opened(documents[0])
        begin = time.process_time()
        for text in documents:
            opened(text)
        found[step.type] = round(sum(map(len, documents)) / 1e6 / (time.process_time() - begin), 2)
    return found


def judged(corpus: Path, out: Path, planted: dict[str, set[int]], originals: int) -> dict[str, Any]:
    """Recall by kind, and what else was dropped: with its similarity to the most similar document that stayed."""
    texts = [json.loads(line)["text"] for line in corpus.open(encoding="utf-8")]
    places = read_rows(open_table(out / "data"), ["where"])
    kept = {int(where.rpartition(":")[2]) for _, (where,) in places}
    gone = set(range(1, len(texts) + 1)) - kept
    others = sorted(gone & set(range(1, originals + 1)))
    sets = {row: set(shingles(texts[row - 1], NearDuplicates().words)) for row in (*others, *(kept if others else ()))}
    closest = []
    for row in others:
        similar = [(len(sets[row] & sets[k]) / len(sets[row] | sets[k]), k) for k in kept]
        similarity, near = max(similar)
        shown = {"text": texts[row - 1][:200], "kept": texts[near - 1][:200]}
        closest.append({"line": row, "similarity": round(similarity, 3), **shown})
    recall = {kind: round(len(rows & gone) / len(rows), 4) for kind, rows in planted.items()}
    return {"recall": recall, "dropped_besides": len(others), "besides": sorted(closest, key=lambda one: one["similarity"])[:40]}


if __name__ == "__main__":
    main()
