"""The account of a curation as people see it: whole, true to audit.json, and standing alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_training import TINY, write_texts

from bothways.config import override
from bothways.data.curation.decontamination import Decontamination, evaluation_sets
from bothways.data.curation.pii import Pii
from bothways.data.source import open_source
from bothways.errors import InputError
from bothways.model.card import CARD, add_section
from bothways.recipes.audit import describe_corpus, find_audit, overview, read_audit, write_audit
from bothways.recipes.audit_steps import share
from bothways.recipes.corpus import describe, open_text
from bothways.recipes.pretraining import pretrain
from bothways.recipes.published import RECIPES
from bothways.training.schedule import Steps

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


def amount(documents: int, characters: int) -> dict[str, int]:
    return {"documents": documents, "characters": characters}


def step(number: int, kind: str, seen: int, dropped: int, changed: int, **more: Any) -> dict[str, Any]:
    kept = seen - dropped
    totals = {"seen": seen, "kept": kept, "changed": changed, "dropped": dropped}
    amounts = {name: amount(count, 100 * count) for name, count in totals.items()}
    return {"number": number, "type": kind, "settings": {}, **amounts, "reasons": [], "counts": {}, "facts": {}} | more


@pytest.fixture
def audit(tmp_path: Path) -> dict[str, Any]:
    """What a curation of three steps writes; the counts of the last two are those of real steps."""
    rows = tmp_path / "my_dev.txt"
    rows.write_text("The heron stood in the shallow water all day.\n")
    decontaminate = Decontamination(sets=evaluation_sets(rows)).open()
    found = decontaminate("Look: the heron stood in the shallow water all day, they said.")
    scrubbed = Pii().open()("Write to jane@example.com today.")
    language = [
        {
            "reason": "French",
            "outcome": "dropped",
            **amount(1, 100),
            "examples": [{"where": "a.txt:7", "text": "Il <était> | une"}],
        }
    ]
    removed = [{"reason": found.reason, "outcome": "changed", **amount(1, 80), "examples": [{"where": "b.txt:1", "text": "x"}]}]
    replaced = [
        {
            "reason": scrubbed.reason,
            "outcome": "changed",
            **amount(1, 80),
            "examples": [{"where": "b.txt:2", "text": scrubbed.text}],
        }
    ]
    return {
        "format": 1,
        "recipe": {"seed": 7, "steps": []},
        "input": {"files": 2, **amount(3210, 321_000)},
        "output": {"files": 1, **amount(3209, 320_900)},
        "steps": [
            step(1, "language", 3210, 1, 0, reasons=language),
            step(2, "decontamination", 3209, 0, 1, reasons=removed, counts=dict(found.counts), facts=dict(decontaminate.facts)),
            step(3, "pii", 3209, 0, 1, reasons=replaced, counts=dict(scrubbed.counts)),
            step(4, "domain", 3209, 0, 0, counts={"score 0.0 to 0.1": 9, "score 0.9 to 1.0": 3200}, facts={"threshold": 0.05}),
        ],
    }


def test_the_page_says_it_all_and_stands_alone(audit: dict[str, Any], tmp_path: Path) -> None:
    page = write_audit(audit, tmp_path / "audit.html", "bothways curate 'a b' --out c", seconds=10.0).read_text()
    text = re.sub(r"<[^>]+>", "\n", page)
    for wanted in (
        "3,209 of 3,210 documents were kept",
        "32,100",  # characters per second
        "2. decontamination",
        "French",
        "Il &lt;était&gt; | une",
        "rows of my_dev.txt removed",
        f"{tmp_path / 'my_dev.txt'}:1",
        "passages removed",
        "sets, my_dev.txt, searched",
        "Write to [EMAIL] today.",
        "threshold",
        "0.031\u00a0%",
        "bothways curate &#39;a b&#39; --out c",
        "&#34;seed&#34;: 7",
    ):
        assert wanted in text, wanted
    assert "jane@" not in page
    titles = re.findall(r'aria-label="([^"]*)"', page)
    assert titles == ["Curation, in documents", "Curation, in characters", "4. domain: scores"]
    assert not re.findall(r"https?:|<script|<link|@import|\bsrc=", page)


def test_a_curation_without_steps_has_a_page(audit: dict[str, Any], tmp_path: Path) -> None:
    page = write_audit(audit | {"steps": []}, tmp_path / "audit.html").read_text()
    assert "What became of the corpus" in page
    assert "per second" not in page  # how long it took is not known


def test_a_card_tells_its_corpus(audit: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / CARD).write_text("# A model\n")
    describe_corpus(audit, tmp_path)
    describe_corpus(audit, tmp_path)  # again, in its place
    card = (tmp_path / CARD).read_text()
    assert card.startswith("# A model\n")
    assert card.count("## The corpus") == 1
    assert "| language | 3,210 | 0 | 1 | French |" in card
    assert "| pii | 3,209 | 1 | 0 | personal data replaced |" in card
    describe_corpus(audit, tmp_path / "nowhere")  # no card, no section
    assert not (tmp_path / "nowhere").exists()


def test_a_section_cannot_end_itself(tmp_path: Path) -> None:
    (tmp_path / CARD).write_text("# A model\n")
    add_section(tmp_path, "corpus", "a\n<!-- end of bothways corpus -->\nb")
    add_section(tmp_path, "corpus", "c\n\nd")
    card = (tmp_path / CARD).read_text()
    assert "b" not in card.split()
    assert "c\n\nd\n" in card


def test_the_account_of_a_source_is_found(audit: dict[str, Any], tmp_path: Path) -> None:
    data = tmp_path / "corpus/data"
    data.mkdir(parents=True)
    (data / "one.txt").write_text("text")
    assert find_audit([data / "one.txt"]) is None
    (tmp_path / "corpus/audit.json").write_text(json.dumps(audit))
    assert find_audit([data / "one.txt"]) == find_audit([tmp_path / "corpus/one.txt"]) == audit
    other = tmp_path / "other"
    other.mkdir()
    assert find_audit([data / "one.txt", other / "two.txt"]) is None  # it tells only of a part
    (other / "audit.json").write_text('{"format": 3}')
    assert find_audit([other / "two.txt"]) is None  # somebody else's file of that name


def test_no_account(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`bothways curate` writes it"):
        read_audit(tmp_path / "audit.json")
    (tmp_path / "audit.json").write_text('{"format": 1, "recipe": {}}')
    with pytest.raises(InputError, match="it has no 'input'"):
        read_audit(tmp_path / "audit.json")


def test_an_overview_for_reports(audit: dict[str, Any]) -> None:
    assert [section.title for section in overview(audit)] == ["Curation, in documents", "Curation, in characters", "Step by step"]


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(0, 5, "0\u00a0%"), (1, 3, "33.3\u00a0%"), (1, 30_000, "0.0033\u00a0%"), (1, 0, "-")]
)
def test_shares(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def test_pretraining_on_a_curated_corpus_tells_of_it(audit: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    write_texts(tmp_path / "corpus/data")
    (tmp_path / "corpus/audit.json").write_text(json.dumps(audit))
    source = open_source(tmp_path / "corpus/data")
    (tmp_path / "corpus/manifest.json").write_text("{}")  # a curation's, not that of token shards
    found = open_text(tmp_path / "corpus")
    assert (found.source, found.tokenizer) == (source, None)
    done = pretrain(override(RECIPES["modernbert_short"](source, Steps(count=2), "tiny"), TINY), tmp_path / "run")
    assert done.report is not None
    assert "Curation, in documents" in done.report.read_text()
    card = (tmp_path / "run/model" / CARD).read_text()
    assert "3,209 of 3,210 documents were kept" in card
    assert done.model.save(tmp_path / "elsewhere")
    assert "The corpus" not in (tmp_path / "elsewhere" / CARD).read_text()  # what was said, was said of that folder's weights


def test_a_corpus_says_what_else_curation_would_read(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts")
    (tmp_path / "texts/page.html").write_text("<p>A page.</p>")
    (tmp_path / "texts/picture.png").write_bytes(b"png")
    files, other = describe(open_text(tmp_path / "texts").source)
    assert files.startswith(f"{tmp_path / 'texts'}: ")
    assert "2 skipped (1 .html, 1 .png)" in files
    assert other.startswith(".html: `bothways curate` reads these")
