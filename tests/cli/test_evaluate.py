"""`evaluate`: several tasks in one command, what is kept, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from tests.cli.conftest import Refused, Run

from bothways.cli.evaluate import TUNED
from bothways.evaluation.glue import TASKS, TaskName

PAIRS = [("the cat sat on a mat", "the cat sat a on mat"), ("fish swim in the sea", "fish swim the in sea")]
FIELDS = {"UID": "order", "field": "syntax", "linguistics_term": "order"}


def blimp(folder: Path) -> Path:
    folder.mkdir()
    rows = [{"sentence_good": good, "sentence_bad": bad, **FIELDS} for good, bad in PAIRS]
    (folder / "order.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def sst2(folder: Path) -> Path:
    folder.mkdir()
    for name, rows in (("train", 12), ("dev", 4)):
        texts = (("the cat sat", 1), ("fish swim", 0))
        text = "".join("{}\t{}\n".format(*texts[number % 2]) for number in range(rows))
        (folder / f"{name}.tsv").write_text("sentence\tlabel\n" + text)
    return folder


def test_blimp(run: Run, model: Path, tmp_path: Path) -> None:
    data, out = blimp(tmp_path / "blimp"), tmp_path / "out"
    command = ("evaluate", model, "--task", "blimp", "--data", data, "--out", out)
    ran = run(*command)
    assert ran.code == 0, ran
    assert "overall" in ran.out
    assert "--json gives each of the 1 sets" in ran.out
    kept = (out / "blimp.json").read_text()
    said = json.loads(run(*command, "--json").out)
    assert (out / "blimp.json").read_text() == kept
    [table] = said["tables"]
    assert [row[0] for row in table["rows"]] == ["overall", "field", "phenomenon", "set"]
    assert table["rows"][0][2] == table["rows"][3][2]
    assert "2 pairs in 1 sets" in table["note"]
    assert "1 pairs" in run("evaluate", model, "--task", "blimp", "--data", data, "--limit", "1").out


def test_blimp_goes_on_with_the_sets_that_are_done(run: Run, refused: Refused, model: Path, tmp_path: Path) -> None:
    """Killed behind a set, it reads that one's scores, not its sentences; those of other settings are refused."""
    data, out = blimp(tmp_path / "blimp"), tmp_path / "out"
    more = [{"sentence_good": bad, "sentence_bad": good, **FIELDS, "UID": "turned/round"} for good, bad in PAIRS]
    (data / "turned.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    command = ("evaluate", model, "--task", "blimp", "--data", data, "--out", out)
    whole = json.loads(run(*command, "--json").out)
    (out / "blimp.json").unlink()
    (out / "blimp" / "order.json").unlink()
    assert json.loads(run(*command, "--json").out) == whole
    # what is kept is what is read
    kept = json.loads((out / "blimp" / "turned%2Fround.json").read_text())
    (out / "blimp.json").unlink()
    (out / "blimp" / "turned%2Fround.json").write_text(json.dumps({**kept, "scores": [-1.0, -1.0, -2.0, -2.0]}))
    rows = {row[1]: row[2] for row in json.loads(run(*command, "--json").out)["tables"][0]["rows"] if row[0] == "set"}
    assert rows["turned/round"] == 100
    (out / "blimp.json").unlink()
    assert "order.json: the result of another model" in refused(*command, "--scoring", "word_l2r")


def test_a_result_of_other_settings_is_not_taken(run: Run, refused: Refused, model: Path, tmp_path: Path) -> None:
    data, out = blimp(tmp_path / "blimp"), tmp_path / "out"
    assert run("evaluate", model, "--task", "blimp", "--data", data, "--out", out).code == 0
    message = refused("evaluate", model, "--task", "blimp", "--data", data, "--out", out, "--scoring", "word_l2r")
    assert "blimp.json: the result of another model, data or settings" in message


def test_several_tasks(run: Run, model: Path, tmp_path: Path) -> None:
    films, pairs, out = sst2(tmp_path / "SST-2"), blimp(tmp_path / "pairs"), tmp_path / "out"
    few = ("--seeds", "2", "--epochs", "1", "--lr", "1e-3")
    tasks = ("--task", "sst2", "--data", films, "--task", "blimp", "--data", pairs)
    ran = run("evaluate", model, *tasks, *few, "--out", out, "--json")
    assert ran.code == 0, ran
    said = json.loads(ran.out)
    assert len(said["seeds"]["sst2"]) == 2
    assert [table["columns"][0] for table in said["tables"]] == ["of", "task"]
    assert "SST-2: seed 1, run 2 of 2" in ran.err
    again = run("evaluate", model, *tasks, *few, "--out", out, "--json")
    assert "run 2 of 2" not in again.err
    assert json.loads(again.out) == said


def test_sts(run: Run, model: Path, tmp_path: Path) -> None:
    row = "g\tf\t2012\t1\t{}\t{}\t{}\n"
    file = tmp_path / "sts.csv"
    file.write_text(
        row.format(5, "the cat sat", "the cat sat") + row.format(0, "fish swim", "a tree") + row.format(3, "the cat", "a cat")
    )
    ran = run("evaluate", model, "--task", "sts", "--data", file)
    assert ran.code == 0, ran
    assert "bag of words" in ran.out


def test_what_cannot_be_evaluated(run: Run, refused: Refused, model: Path, tmp_path: Path) -> None:
    assert "nothing there" in refused("evaluate", model, "--task", "blimp", "--data", tmp_path / "none")
    assert "no such folder" in refused("evaluate", model, "--task", "rte", "--data", tmp_path / "none")
    for wrong in (("--task", "glue", "--data", "."), ("--task", "rte", "--data", ".", "--data", ".")):
        assert run("evaluate", model, *wrong).code == 2


def test_the_tasks_are_those_there_are() -> None:
    assert set(TUNED) == set(TASKS) == set(get_args(TaskName))
