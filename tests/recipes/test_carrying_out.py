"""What recipes refuse before any work, and what they never replace."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from tests.cli.conftest import save
from tests.cli.test_training import TINY, contents, write_texts

import bothways
from bothways.config import override
from bothways.data.packing import SampleCount
from bothways.data.rows import JsonLines
from bothways.data.source import open_source
from bothways.data.table import Contrast, SingleText
from bothways.errors import InputError
from bothways.recipes.demo import demo
from bothways.recipes.finetuning import finetune, train_embedder
from bothways.recipes.pretraining import pretrain
from bothways.recipes.published import RECIPES
from bothways.recipes.runs import Embedding, Finetuning, Pretraining, Staged
from bothways.training import compiling, log
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Linear, Steps
from bothways.training.settings import TrainingConfig

TRAINING = TrainingConfig(optimizer=AdamW(lr=1e-3), schedule=Linear(), budget=Steps(count=2))


def pretraining(texts: Path, *changes: str, recipe: str = "modernbert_short") -> Pretraining:
    run = RECIPES[recipe](open_source(texts), Steps(count=2), "tiny")
    return override(run.base if isinstance(run, Staged) else run, [*TINY, *changes])


def finetuning(model: Path, folder: Path) -> Finetuning:
    table = folder / "rows.jsonl"
    table.write_text("".join(json.dumps({"text": text, "label": text}) + "\n" for text in ("the cat", "a tree")))
    rows = JsonLines(paths=(str(table),))
    return Finetuning(model=str(model), table=rows, columns=SingleText(), batching=SampleCount(samples=2), training=TRAINING)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts")


@pytest.mark.parametrize(
    ("recipe", "change"),
    [
        ("bert", "encoder.layers.0.mixer.window=4"),
        ("bert", "encoder.layers.0.mlp.activation=relu"),
        ("bert", "encoder.layers.0.mlp.activation=tanh"),
        ("bert", "head.tied=false"),
        ("roberta", "tokenizer.specials=bert"),
        ("neobert", "encoder.layers.0.mlp.size=100"),
    ],
)
def test_a_network_that_could_not_be_saved_is_not_trained(texts: Path, tmp_path: Path, recipe: str, change: str) -> None:
    with pytest.raises(InputError, match="cannot express"):
        pretrain(pretraining(texts, change, recipe=recipe), tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_a_corpus_beside_a_note_of_the_same_name_is_not_removed(texts: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    write_texts(project.with_name("source")).rename(project)
    theirs = write_texts(tmp_path / "more")
    theirs.rename(project / "data")
    (project / "prepared-from.json").write_text("{}")
    before = contents(project)
    with pytest.raises(InputError, match=r"prepared-from\.json: not written by a run"):
        pretrain(pretraining(project / "data"), project)
    (project / "prepared-from.json").unlink()
    with pytest.raises(InputError, match="data: nothing says which text"):
        pretrain(pretraining(project / "data"), project)
    assert {**before, "prepared-from.json": b"{}"} == {**contents(project), "prepared-from.json": b"{}"}


def test_a_model_that_no_run_made_is_not_replaced(texts: Path, tmp_path: Path) -> None:
    source = save(tmp_path / "project" / "model")
    before = contents(tmp_path / "project")
    with pytest.raises(InputError, match=r"project.model: exists, and no run of this folder made it"):
        finetune(finetuning(source, tmp_path), tmp_path / "project")
    with pytest.raises(InputError, match="no run of this folder made it"):
        pretrain(pretraining(texts), tmp_path / "project")
    assert contents(tmp_path / "project") == before


def test_pretraining_in_the_folder_of_another_run_writes_nothing(texts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finetune(finetuning(save(tmp_path / "model"), tmp_path), run)
    before = contents(run)
    with pytest.raises(InputError, match="belongs to another run"):
        pretrain(pretraining(texts), run)
    assert contents(run) == before


def test_without_the_report_extra_a_run_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def absent(name: str, *rest: Any, **named: Any) -> Any:
        if name == "jinja2":
            raise ImportError(name)
        return really(name, *rest, **named)

    said: list[str] = []
    run = finetuning(save(tmp_path / "model"), tmp_path)
    monkeypatch.setattr(builtins, "__import__", absent)
    trained = finetune(run, tmp_path / "run", said.append)
    assert trained.report is None
    assert any("bothways[report]" in line for line in said)
    assert bothways.load(tmp_path / "run" / "model").predict(["the cat"]).shape == (1, 2)


def test_what_is_held_out_is_said(texts: Path, tmp_path: Path) -> None:
    said: list[str] = []
    pretrain(pretraining(texts, "held_out=0.25"), tmp_path / "run", said.append)
    (line,) = [line for line in said if "held out" in line]
    assert " of 12 documents held out, " in line
    assert line.endswith("; few to judge by, hold out more: --set held_out=0.5")


def test_an_embedder_keeps_its_pooling_and_says_what_becomes_of_its_prompts(tmp_path: Path) -> None:
    source = save(tmp_path / "model")
    model = bothways.load(source)
    model.settings = replace(model.settings, pooling="cls", prompts={"query": "query: "}, declared=True)
    model.save(source)
    table = tmp_path / "pairs.jsonl"
    table.write_text('{"anchor": "the cat", "positive": "a tree"}\n{"anchor": "a tree", "positive": "the cat"}\n')
    rows, batching = JsonLines(paths=(str(table),)), SampleCount(samples=2)
    run = Embedding(model=str(source), table=rows, columns=Contrast(), batching=batching, training=TRAINING)
    said: list[str] = []
    assert train_embedder(run, tmp_path / "kept", said.append).model.settings.pooling == "cls"
    assert any("query" in line and "neither trained with nor kept" in line for line in said)
    assert train_embedder(replace(run, pooling="max"), tmp_path / "changed").model.settings.pooling == "max"


def test_a_demo_takes_no_folder_that_holds_other_things(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("mine")
    with pytest.raises(InputError, match="holds other things than a demo"):
        demo(tmp_path, print)
    assert contents(tmp_path) == {"corpus.jsonl": b"mine"}


def test_what_has_no_fixed_shape_is_not_compiled(tmp_path: Path) -> None:
    run = finetuning(save(tmp_path / "model"), tmp_path)
    with pytest.raises(InputError, match=r"compile: the inputs of SequenceClassification cannot be brought to one shape"):
        finetune(replace(run, training=replace(TRAINING, compile=True)), tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.filterwarnings("default")  # torch's compiler warns of what it does itself
@pytest.mark.slow
def test_compiled_pretraining_learns_the_same_and_goes_on_without(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")  # all of torch's compiler but what needs one of C++
    jaxtyping.config.update("jaxtyping_disable", True)  # what checks annotations cannot be compiled
    try:
        said: list[str] = []
        compiled = pretrain(pretraining(texts, "training.compile=true"), tmp_path / "compiled", said.append)
        plain = pretrain(pretraining(texts), tmp_path / "plain")
        again = pretrain(pretraining(texts), tmp_path / "compiled")  # without: how it is computed is free to change
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    assert any(line.startswith("every batch is brought to ") and line.endswith("% of all that is processed") for line in said)
    assert compiled.result.loss == pytest.approx(plain.result.loss, rel=1e-4)
    assert (compiled.result.tokens, compiled.result.step) == (plain.result.tokens, plain.result.step)
    assert again.result.loss == compiled.result.loss
    shares = {
        name: [line["filler"] for line in log.read(tmp_path / name) if line["kind"] == "train"] for name in ("compiled", "plain")
    }
    assert all(0 < share < 1 for share in shares["compiled"])
    assert not any(shares["plain"])
    assert "Filler" in (tmp_path / "compiled" / "report.html").read_text()
    assert "Filler" not in (tmp_path / "plain" / "report.html").read_text()
