"""`bothways code`: tasks from folders, and the way from there to a repaired variable."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path

import pytest
import torch
from tests.cli.conftest import Refused, Run

import bothways
from bothways.data.code.examples import TASKS
from bothways.data.code.pointers import PointerData, read_pointed
from bothways.data.rows import open_table
from bothways.errors import InputError
from bothways.recipes.repairing import POINTERS, load_repair

pytest.importorskip("rensa")

LIBRARY = Path(sysconfig.get_path("stdlib"))


def write_sources(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    for number in range(count):
        body = "".join(
            f"    n{number}_{i} = n{number}_{i - 1} - x{number} if x{number} > {i} else q{i}_{number}\n" for i in range(1, 6)
        )
        (folder / f"m{number}.py").write_text(f"def f{number}(x{number}, n{number}_0):\n{body}    return x{number}\n")
    return folder


def test_build(run: Run, refused: Refused, tmp_path: Path) -> None:
    """What was left out is counted, said and in the folder; a folder that is there is not written to."""
    sources, out = write_sources(tmp_path / "sources"), tmp_path / "tasks"
    (sources / "old.py").write_text("print 'hello'\n")
    (sources / "vendor").mkdir()
    (sources / "vendor" / "broken.py").write_text("(")
    ran = run("code", "build", sources, "--out", out, "--mutations", "2", "--leave-out", "vendor", "--json")
    assert ran.code == 0, ran
    said = json.loads(ran.out)
    assert "left out: sources/old.py: line 1: Missing parentheses" in ran.err
    assert list(said["refused"]) == ["sources/old.py"]
    assert said["rows"]["variable_misuse"]["train"] == 2 * 2 * said["functions"]["train"]
    assert {path.name for path in out.iterdir()} == {"corpus.jsonl", "tasks.json", *TASKS}
    assert "exists already" in refused("code", "build", sources, "--out", out)
    told = run("code", "build", sources, "--out", tmp_path / "again")
    assert "files that do not parse  2" in told.out


def test_what_cannot_be_built_leaves_nothing(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "nothing to read" in refused("code", "build", tmp_path / "empty", "--out", tmp_path / "out")
    assert "no such file or folder" in refused("code", "build", tmp_path / "none", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_from_sources_to_repair(run: Run, refused: Refused, tmp_path: Path) -> None:
    """The recipe at toy size on real code, a classifier and both pointers on it; what is loaded again says what was evaluated."""
    tasks, base, out = tmp_path / "tasks", tmp_path / "base", tmp_path / "repair"
    sources = [LIBRARY / name for name in ("json", "wsgiref", "html", "concurrent", "email")]
    assert run("code", "build", *sources, "--longest", "100", "--mutations", "1", "--out", tasks).code == 0
    steps = ("--steps", "4")
    made = run("pretrain", tasks / "corpus.jsonl", "--recipe", "cubert", "--size", "toy", *steps, "--out", base, "--json")
    assert made.code == 0, made
    assert "next_sentence/accuracy" in json.loads(made.out)["evaluation"]
    assert bothways.load(base / "model").family.name == "bert"
    rows = tasks / "wrong_binary_operator"
    tuned = ("finetune", base / "model", rows / "train.jsonl", "--held-out", rows / "test.jsonl", "--text", "function")
    assert run(*tuned, "--overflow", "cut", *steps, "--out", tmp_path / "tuned").code == 0
    rows = tasks / "variable_misuse_repair"
    assert "over max_length" in refused("code", "repair", base / "model", rows, *steps, "--out", tmp_path / "long")
    out.mkdir()
    (out / POINTERS).touch()
    command = ("code", "repair", base / "model", rows, "--overflow", "cut", *steps, "--out", out, "--json")
    assert f"{POINTERS}: exists, and no run of this folder made it" in refused(*command)
    (out / POINTERS).unlink()
    ran = run(*command)
    assert ran.code == 0, ran
    assert "left out, their bug being behind that" in ran.err
    said = json.loads(ran.out)
    assert {"accuracy", "true_positive", "localization", "repair", "joint"} <= said["evaluation"].keys()
    assert json.loads(run(*command).out) == said

    task, model = load_repair(out), bothways.load(out / "model")
    assert model.tokenizer is not None
    held = PointerData(read_pointed(open_table(rows / "test.jsonl")), model.tokenizer, model.max_seq_length, "cut")
    inputs = task.prepare([held[number] for number in range(len(held))], 0, 0)
    with torch.no_grad():
        sums, counts = task(inputs), task.counts(inputs)
    for name in ("localization", "repair", "joint", "location_loss"):
        assert float(sums[name] / counts[name]) == pytest.approx(said["evaluation"][name], rel=1e-4)
    with pytest.raises(InputError, match="no finished run of `bothways code repair`"):
        load_repair(base)
    zeroed = run(*command[:-3], "--masking", "zeroed", "--dry-run", "--out", out)
    assert json.loads(zeroed.out)["head"]["masking"] == "zeroed"
