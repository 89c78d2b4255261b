"""On real text: copies planted in novels are found, whatever was done to them, and next to nothing else is dropped."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from tests.data.curation.corpus import write_lines

from bothways.data.curation.duplicates import ExactDuplicates, NearDuplicates, shingles
from bothways.data.curation.recipe import Curation, Local
from bothways.data.curation.run import curate
from bothways.data.rows import JsonLines, open_table, read_rows
from bothways.data.source import Column

pytest.importorskip("datatrove", reason="pip install 'bothways[data]'")
pytest.importorskip("rensa", reason="pip install 'bothways[data]'")

EACH = 40


def passages(file: Path, count: int) -> list[str]:
    """Runs of paragraphs of at least 1,000 characters, spread over all novels."""
    found: list[str] = []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            gathered: list[str] = []
            for paragraph in json.loads(line)["text"].split("\n")[:400]:
                gathered.append(paragraph)
                if sum(map(len, gathered)) >= 1000:
                    found.append("\n".join(gathered))
                    gathered = []
    return found[:: len(found) // count][:count]


def respelt(text: str, draw: random.Random) -> str:
    return text.upper().replace(",", " --").replace(".", "!")


def reworded(share: float, text: str, draw: random.Random) -> str:
    words = text.split(" ")
    for place in draw.sample(range(len(words)), max(round(share * len(words)), 1)):
        words[place] = draw.choice(words)[::-1]
    return " ".join(words)


COPIES = {
    "exact": lambda text, draw: text,
    "other white space": lambda text, draw: "\n " + text.replace(" ", "  "),
    "other case and punctuation": respelt,
    "one word in fifty": lambda text, draw: reworded(0.02, text, draw),
    "one word in twenty": lambda text, draw: reworded(0.05, text, draw),
    "a sentence more": lambda text, draw: text + " And this is what an editor has put behind it, in one sentence.",
    "the first tenth less": lambda text, draw: text[len(text) // 10 :],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["novels-eng", "novels-deu"])
def test_planted_copies_are_found(shared: Path, tmp_path: Path, name: str) -> None:
    originals = passages(shared / "data/text" / f"{name}.jsonl.gz", 1000)
    draw = random.Random(0)
    sources = iter(draw.sample(originals, EACH * len(COPIES)))
    rows, planted = list(originals), {}
    for kind, copy in COPIES.items():
        planted[kind] = set(range(len(rows) + 1, len(rows) + 1 + EACH))
        rows += [copy(next(sources), draw) for _ in range(EACH)]
    file = write_lines(tmp_path / "corpus.jsonl", rows)
    steps = (ExactDuplicates(), NearDuplicates())
    recipe = Curation(sources=(Column(table=JsonLines(paths=(str(file),))),), steps=steps, executor=Local(workers=1))
    done = curate(recipe, tmp_path / "out")
    assert done is not None
    kept = {int(where.rpartition(":")[2]) for _, (where,) in read_rows(open_table(tmp_path / "out/data"), ["where"])}
    gone = set(range(1, len(rows) + 1)) - kept
    for kind, places in planted.items():
        assert len(places & gone) >= 0.95 * EACH, (kind, len(places & gone))
    # what else is gone is a copy in the novels themselves
    sets = [set(shingles(text, 3)) for text in originals]
    for row in gone & set(range(1, len(originals) + 1)):
        others = (sets[row - 1] & one for number, one in enumerate(sets, 1) if number != row)
        assert max(len(one) for one in others) > 0.5 * len(sets[row - 1]), originals[row - 1]
