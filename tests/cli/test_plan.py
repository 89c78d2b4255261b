"""`plan` before a run, and `compare` after two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Refused, Run
from tests.cli.test_training import settings, write_texts
from tests.training.toy import run as train_toy

QUICK = ("--seconds", "0")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts")


def test_a_plan_of_a_recipe(run: Run, texts: Path) -> None:
    ran = run("plan", "bert", texts, "--steps", 6, "--watts", 100, "--price", 2, *QUICK, *settings())
    assert ran.code == 0, ran
    for part in ("network", "1 layers of 128", "text", "machine", "memory", "free", "cost", "speed", "budget", "6 steps"):
        assert part in ran.out, part
    assert "kWh at 100 W (as given)" in ran.out
    assert "tokens a parameter" in ran.out
    assert "planned, suggested" in ran.out
    assert "nan" not in ran.out


def test_a_plan_as_json_of_a_run_as_json(run: Run, texts: Path, tmp_path: Path) -> None:
    dry = run("pretrain", texts, "--out", tmp_path / "run", "--recipe", "bert", "--steps", 6, "--dry-run", *settings())
    (tmp_path / "run.json").write_text(dry.out)
    ran = run("plan", tmp_path / "run.json", "--json", *QUICK)
    assert ran.code == 0, ran
    found = json.loads(ran.out)
    assert found["spent"]["steps"] == 6
    assert found["spent"]["tokens"] == pytest.approx(6 * 512, rel=0.1)
    assert found["spent"]["epochs"] == pytest.approx(found["spent"]["tokens"] / (0.98 * found["text"]["tokens"]), rel=1e-3)
    memory = found["memory"]
    parts = ("program", "text", "weights", "optimizer", "activations", "allocator", "saving")
    assert memory["peak"] == sum(memory[part] for part in parts)
    assert found["parameters"]["total"] == sum(count for name, count in found["parameters"].items() if name != "total")
    hour = json.loads(run("plan", tmp_path / "run.json", "--json", "--hours", 1, *QUICK).out)
    assert hour["spent"]["seconds"] == pytest.approx(3600, rel=0.01)


def test_a_plan_without_text(run: Run) -> None:
    ran = run("plan", "bert", *QUICK, *settings())
    assert ran.code == 0, ran
    assert "no text given: all samples of 32 tokens" in ran.out
    assert "epochs" not in ran.out
    assert "give --watts" in ran.out or "own counters" in ran.out


def test_a_plan_with_a_tokenizer_that_exists(run: Run, texts: Path, tmp_path: Path) -> None:
    trained = run("tokenizer", "train", texts, "--out", tmp_path / "tokenizer", "--vocab-size", 40)
    assert trained.code == 0, trained
    smaller = ("--set", "encoder.num_layers=1", "--set", "batching.tokens=512", "--set", "max_length=32")
    ran = run("plan", "bert", texts, "--steps", 2, "--json", "--tokenizer", tmp_path / "tokenizer", *QUICK, *smaller)
    assert ran.code == 0, ran
    found = json.loads(ran.out)
    assert "by a tokenizer of that text alone" not in found["text"]["about"]


@pytest.mark.slow
def test_a_plan_of_stages(run: Run) -> None:
    ran = run("plan", "modernbert", "--size", "toy", "--steps", 6, "--watts", 50, *QUICK)
    assert ran.code == 0, ran
    assert [line.split()[1] for line in ran.out.splitlines() if line.startswith("stage")] == [
        "1-general",
        "2-context",
        "3-anneal",
    ]
    assert "all stages" in ran.out
    found = json.loads(run("plan", "modernbert", "--size", "toy", "--steps", 6, "--json", *QUICK).out)
    assert sum(stage["spent"]["steps"] for stage in found["stages"].values()) == 6


def test_what_cannot_be_planned(refused: Refused, tmp_path: Path) -> None:
    assert "neither a recipe (bert," in refused("plan", "brt", *QUICK)
    assert "No such file" in refused("plan", tmp_path / "none.json", *QUICK)
    (tmp_path / "bad.json").write_text('{"famly": "bert"}')
    assert "did you mean 'family'?" in refused("plan", tmp_path / "bad.json", *QUICK)


@pytest.mark.slow
def test_two_runs(run: Run, refused: Refused, texts: Path, tmp_path: Path) -> None:
    for name, rate in (("a", "1e-3"), ("b", "5e-3")):
        change = ("--set", f"training.optimizer.lr={rate}", "--set", "training.log_every=1")
        ran = run("pretrain", texts, "--out", tmp_path / name, "--recipe", "bert", "--steps", 4, *settings(), *change)
        assert ran.code == 0, ran
    page = tmp_path / "page.html"
    ran = run("compare", tmp_path / "a", tmp_path / "b", "--out", page)
    assert ran.code == 0, ran
    assert "training.optimizer.lr" in ran.out
    assert str(page) in ran.err
    assert "Throughput" in page.read_text()
    found = json.loads(run("compare", tmp_path / "a", tmp_path / "b", "--json", "--levels", "99").out)
    assert found["differences"]["rows"] == [["training.optimizer.lr", "0.001", "0.005"]]
    assert found["loss"] == "training loss, smoothed"  # one look at held-out text, at the end
    assert found["reached"]["99"]["a"]["tokens"] > 0
    assert "no training run to compare" in refused("compare", tmp_path / "a", texts)
    assert "ends in .html" in refused("compare", tmp_path / "a", tmp_path / "b", "--out", texts)
    assert run("compare", tmp_path / "a", tmp_path / "b", "--levels", "low").code == 2


def test_a_wildcard_finds_more_than_runs(run: Run, tmp_path: Path) -> None:
    """As in the folder of a ladder: what is no run is left out, and named."""
    for name in ("a", "b"):
        train_toy(tmp_path / "runs" / name)
    (tmp_path / "runs" / "texts").mkdir()
    (tmp_path / "runs" / "compared.html").write_text("<html>")
    found = sorted((tmp_path / "runs").iterdir())
    assert [one.name for one in found] == ["a", "b", "compared.html", "texts"]
    said = json.loads(run("compare", *found, "--json").out)["figures"]
    assert said["columns"][1:] == ["a", "b"]
    assert all(f"runs/{name}" in said["note"] for name in ("compared.html", "texts"))
    assert "Left out, for they are no runs" in " ".join(run("compare", *found).out.split())
