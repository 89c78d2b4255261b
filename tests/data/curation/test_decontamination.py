"""Rows of evaluation sets are found as they were planted, however they are spelt, and nothing else is."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from bothways.data.curation.decontamination import Decontamination, EvaluationSet, evaluation_sets
from bothways.data.curation.step import Opened, Step
from bothways.data.source import TextFiles
from bothways.errors import InputError

ROWS = [
    "The sailors rode the breeze clear of the rocks before the evening tide came in over the bar.",
    "Nobody knows where the ship went.",
    "Yes, indeed.",
]
FILLER = "It was a quiet morning in the little town, and the bells had not yet begun to ring for church."


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "dev.jsonl"
    path.write_text("".join(json.dumps({"text": row, "label": 1}) + "\n" for row in ROWS))
    return path


def step(path: Path, **changes: object) -> Decontamination:
    return Decontamination(sets=evaluation_sets(path), **changes)  # type: ignore[arg-type]


def test_a_row_is_cut_out_and_named(rows: Path) -> None:
    config = step(rows)
    assert isinstance(config, Step)
    assert config.files() == (rows,)
    opened = config.open()
    assert isinstance(opened, Opened)
    verdict = opened(f"{FILLER} {ROWS[0]} {FILLER}")
    assert verdict.text == f"{FILLER} {FILLER}"
    assert verdict.reason == "rows of dev.jsonl removed"
    assert verdict.counts == {f"row {rows}:1": 1, "passages removed": 1}
    assert verdict.example is not None
    assert "sailors rode" in verdict.example
    assert opened.facts == {
        "sets": {"dev.jsonl": {"rows": 3, "searched": 2, "too short": 1}},
        "n-grams": 18 - 8 + 1 + 1,
    }


def test_or_the_document_is_dropped(rows: Path) -> None:
    verdict = step(rows, action="drop").open()(f"{FILLER} {ROWS[1]}")
    assert (verdict.text, verdict.reason) == (None, "holds rows of dev.jsonl")
    assert verdict.counts == {f"row {rows}:2": 1}


def test_a_clean_document_goes_on_untouched(rows: Path) -> None:
    text = f"{FILLER}\n\n  {FILLER}\n"
    verdict = step(rows).open()(text)
    assert (verdict.text, verdict.reason, verdict.counts) == (text, None, {})


@pytest.mark.parametrize(
    "spelt",
    [
        "THE SAILORS RODE THE BREEZE CLEAR OF THE ROCKS BEFORE THE EVENING TIDE CAME IN OVER THE BAR",
        "The sailors\nrode the breeze -- clear of the rocks;\nbefore the évening tide came in (over the bar)",
        "The sailors rode the breeze clear of the rocks before the evening wind came in over the bar.",  # a word is another
        "and the sailors rode the breeze clear of the rocks, before the evening",  # most of it
    ],
)
def test_spellings_of_a_row(rows: Path, spelt: str) -> None:
    verdict = step(rows, action="drop").open()(f"{FILLER} {spelt} {FILLER}")
    assert verdict.counts == {f"row {rows}:1": 1}


@pytest.mark.parametrize(
    "other",
    [
        "The sailors rode the breeze clear of the harbour.",  # eight words of eighteen
        "Nobody knows where the ship is.",  # all but one of a row that has to be there whole
        "Yes, indeed. Yes, indeed.",  # a row too short to look for
    ],
)
def test_what_is_no_row(rows: Path, other: str) -> None:
    assert step(rows, action="drop").open()(f"{FILLER} {other} {FILLER}").text is not None


def test_the_least_overlap_and_the_size_are_what_is_asked_for(rows: Path) -> None:
    half = f"{FILLER} The sailors rode the breeze clear of the rocks. {FILLER}"
    assert step(rows, action="drop", overlap=0.5).open()(half).text is None  # 9 of 18 words
    assert step(rows, action="drop", overlap=0.51).open()(half).text is not None
    assert step(rows, action="drop", overlap=0.1, ngram=10).open()(half).text is not None
    assert step(rows, action="drop", shortest=2).open()("Yes indeed").text is None


def test_several_rows_and_sets_in_one_document(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("A heron stood in the shallow water.\n\nThe old mill burned down in a single night.\n")
    sets = (*evaluation_sets(rows), *evaluation_sets(tmp_path / "lines.txt"))
    assert [one.name for one in sets] == ["dev.jsonl", "lines.txt"]
    opened = Decontamination(sets=sets).open()
    verdict = opened(f"{ROWS[1]} {FILLER} The old mill burned down in a single night! {FILLER}")
    assert verdict.text == f"{FILLER} {FILLER}"
    assert verdict.counts == {f"row {rows}:2": 1, f"row {tmp_path / 'lines.txt'}:3": 1, "passages removed": 2}
    alone = opened("The old mill burned down in a single night.")
    assert (alone.text, alone.reason) == (None, "nothing but rows of lines.txt")


def test_a_script_without_spaces(tmp_path: Path) -> None:
    (tmp_path / "zh.txt").write_text("我们明天早上一起去北京看长城。\n", encoding="utf-8")
    opened = Decontamination(sets=evaluation_sets(tmp_path / "zh.txt"), action="drop").open()
    assert opened("他说我们明天早上一起去北京看长城好吗").text is None
    assert opened("他说我们明天晚上一起去上海看电影好吗").text is not None


def test_columns_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("a,b\nThe red fox ran home.,A blue bird sang all day.\n")
    sets = evaluation_sets(tmp_path / "pairs.csv", ("a", "b"))
    assert [one.name for one in sets] == ["pairs.csv a", "pairs.csv b"]
    opened = Decontamination(sets=sets, action="drop").open()
    assert opened("Then a blue bird sang all day.").reason == "holds rows of pairs.csv b"


def test_the_same_in_any_order_of_rows(tmp_path: Path) -> None:
    draw = random.Random(0)
    vocabulary = [f"w{number}" for number in range(50)]
    texts = [" ".join(draw.choices(vocabulary, k=draw.randint(3, 30))) for _ in range(200)]
    document = " ".join([*texts[:40], *draw.choices(vocabulary, k=2000)])
    found = []
    for order in (texts, texts[::-1]):
        (tmp_path / "rows.txt").write_text("\n".join(order))
        verdict = Decontamination(sets=evaluation_sets(tmp_path / "rows.txt")).open()(document)
        numbers = {int(name.rpartition(":")[2]) - 1 for name in verdict.counts if name.startswith("row ")}
        found.append((verdict.text, {order[number] for number in numbers}))
    assert found[0] == found[1]
    assert {text for text in texts[:40] if len(text.split()) >= 4} <= found[0][1]


def test_bad_settings(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shortest \(9\) is over ngram \(8\)"):
        step(rows, shortest=9)
    with pytest.raises(ValueError, match=r"two evaluation sets are named 'dev\.jsonl'"):
        Decontamination(sets=evaluation_sets(rows) * 2)
    with pytest.raises(InputError, match="no column 'question'"):
        Decontamination(sets=evaluation_sets(rows, ("question",))).open()
    (tmp_path / "short.txt").write_text("yes\nno\n")
    with pytest.raises(InputError, match=r"evaluation set 'short\.txt': 2 rows, none of 3 words or more"):
        step(tmp_path / "short.txt").open()
    missing = EvaluationSet(name="gone", source=TextFiles(paths=(str(tmp_path / "gone.txt"),), split="line"))
    with pytest.raises(InputError, match=r"gone\.txt"):
        Decontamination(sets=(missing,)).files()
