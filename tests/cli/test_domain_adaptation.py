"""Going on from a model on text of a domain: new tokens, rates by layer, and what is forgotten, through the command line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.cli.conftest import LONGEST, WORDS, Run
from tests.cli.test_training import assert_same_logits, write_csv

import bothways
from bothways.config import from_json
from bothways.data.source import TextFiles
from bothways.recipes import finetuning, pretraining
from bothways.recipes.runs import GivenTokenizer, Pretraining
from bothways.training import log
from bothways.training.record import read

NEW = "tidegate\nmoonpool\nthe\n"


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine takes a second each time, and nothing here is about it."""
    monkeypatch.setattr(pretraining, "gemm_rate", lambda *_: 1e10)
    monkeypatch.setattr(finetuning, "gemm_rate", lambda *_: 1e10)


@pytest.fixture
def domain(tmp_path: Path) -> Path:
    draw = random.Random(0)
    words = ["tidegate", "moonpool", "sea", "fish", "under", "swim"]
    path = tmp_path / "domain.txt"
    path.write_text("\n".join(" ".join(draw.choices(words, k=12)) for _ in range(80)))
    return path


@pytest.fixture
def general(tmp_path: Path) -> Path:
    draw = random.Random(1)
    path = tmp_path / "general.txt"
    path.write_text("\n".join(" ".join(draw.choices(WORDS.split(), k=12)) for _ in range(40)))
    return path


def options(*changes: str) -> list[str]:
    every = ("source.split=line", "batching.tokens=128", *changes)
    return [part for change in every for part in ("--set", change)]


@pytest.mark.slow
def test_all_at_once(run: Run, model: Path, domain: Path, general: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(NEW)
    out = tmp_path / "run"
    command = (
        *("pretrain", domain, "--out", out, "--from", model, "--add-tokens", tmp_path / "words.txt", "--general", general),
        *("--steps", 6, *options("general.split=line", "training.layer_decay=0.5", "training.evaluate_every=3")),
    )  # fmt: skip
    ran = run(*command)
    assert ran.code == 0, ran
    assert "2 tokens added, each of which was" in ran.err
    assert "1 were tokens already" in ran.err

    # the rates of the record
    rates = {row.name: row.lr for row in read(out).parameters}  # type: ignore[union-attr]
    assert (rates["encoder.embedding.tokens.weight"], rates["encoder.layers.0.mixer.qkv.weight"]) == (0.25, 0.5)
    assert rates["encoder.layers.1.mixer.qkv.weight"] == rates["head.bias"] == 1.0

    # the tokens of the folder
    made, old = bothways.load(out / "model"), bothways.load(model)
    assert made.tokenizer is not None
    assert old.tokenizer is not None
    assert made.tokenizer.vocab_size == old.tokenizer.vocab_size + 2
    assert made.tokenizer.encode(["tidegate moonpool"], specials=False)[0].tolist() == [
        old.tokenizer.vocab_size,
        old.tokenizer.vocab_size + 1,
    ]
    assert_same_logits(out / "model")

    # what is forgotten: in the log, the terminal, the report and the card
    lines = [line for line in log.read(out) if line["kind"] == "evaluation"]
    assert [line["step"] for line in lines] == [0, 3, 6]
    assert set(lines[0]["metrics"]) == {"loss", "accuracy", "general/loss", "general/accuracy"}
    assert lines[0]["metrics"]["general/loss"] != lines[-1]["metrics"]["general/loss"]
    for where in (ran.out, (out / "report.html").read_text(), (out / "model" / "README.md").read_text()):
        assert "general text" in where
        assert f"{lines[0]['metrics']['general/loss']:.4g}" in where
        assert f"{lines[-1]['metrics']['general/accuracy']:.2%}" in where
    said = json.loads(run(*command, "--json").out)["forgetting"]
    for text, prefix in (("general text", "general/"), ("the domain, held out", "")):
        for when, line in (("before", lines[0]), ("after", lines[-1])):
            assert said[when][text] == {name: line["metrics"][f"{prefix}{name}"] for name in ("loss", "accuracy")}
    assert said["masked_tokens_of_general_text"] > 30


def test_a_step_that_moves_nothing_forgets_nothing(run: Run, model: Path, domain: Path, general: Path, tmp_path: Path) -> None:
    """The same masks before and after: no figure differs, and each is that of the model that was given."""
    still = ("training.optimizer.lr=1e-30", "training.optimizer.weight_decay=0", "general.split=line")
    out = tmp_path / "run"
    ran = run("pretrain", domain, "--out", out, "--from", model, "--general", general, "--steps", 1, "--json", *options(*still))
    assert ran.code == 0, ran
    said = json.loads(ran.out)["forgetting"]
    assert said["before"] == said["after"]
    before, after = (load_file(folder / "model.safetensors") for folder in (model, out / "model"))
    assert all(before[name].equal(after[name]) for name in before)


def test_a_run_that_was_stopped_before_its_first_checkpoint_looks_once(
    run: Run, model: Path, domain: Path, general: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = (
        "pretrain",
        domain,
        "--out",
        out,
        "--from",
        model,
        "--general",
        general,
        "--steps",
        2,
        *options("general.split=line"),
    )
    assert run(*command).code == 0
    whole = [line["metrics"] for line in log.read(out) if line["kind"] == "evaluation"]
    for place in (out / "checkpoints").iterdir():  # as if it had been killed: the log is there, and no checkpoint
        for file in place.iterdir():
            file.unlink()
        place.rmdir()
    assert run(*command).code == 0
    assert [line["metrics"] for line in log.read(out) if line["kind"] == "evaluation"] == whole
    assert [line["step"] for line in log.read(out) if line["kind"] == "evaluation"] == [0, 2]


def test_what_the_options_say(run: Run, model: Path, domain: Path, general: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(NEW)
    ran = run(
        *("pretrain", domain, "--out", tmp_path / "run", "--from", model, "--recipe", "roberta", "--steps", 3, "--dry-run"),
        *("--add-tokens", tmp_path / "words.txt", "--general", general),
    )  # fmt: skip
    read = from_json(Pretraining, ran.out, "stdout")
    assert read.tokenizer == GivenTokenizer(folder=str(model), added=("tidegate", "moonpool", "the"))
    assert read.general == TextFiles(paths=(str(general),))
    assert (read.start, read.encoder.vocab_size % 64, read.max_length) == (str(model), 0, LONGEST)


def test_layer_decay_in_finetuning(run: Run, model: Path, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "rows.csv", ["text", "label"], [("the cat", "a"), ("a dog", "b")] * 4)
    out = tmp_path / "run"
    ran = run("finetune", model, rows, "--out", out, "--steps", 1, "--set", "training.layer_decay=0.5")
    assert ran.code == 0, ran
    rates = {row.name: row.lr for row in read(out).parameters}  # type: ignore[union-attr]
    assert {rate for name, rate in rates.items() if name.startswith("head.")} == {1.0}
    assert (rates["encoder.embedding.tokens.weight"], rates["encoder.layers.0.mixer.qkv.weight"]) == (0.25, 0.5)


REFUSED = [
    (("--general", "{general}"), "fresh weights has nothing to forget"),
    (("--from", "{model}", "--general", "{general}", "--recipe", "electra", "--size", "toy"), "told by masked tokens alone"),
    (("--from", "{model}", "--general", "{general}", "--set", "ngrams={{}}"), "told by masked tokens alone"),
    (("--from", "{model}", "--general", "none.txt"), "none.txt: no such file or folder"),
    (("--from", "{model}", "--add-tokens", "none.txt"), "none.txt: no such file"),
    (("--recipe", "modernbert", "--size", "toy", "--general", "{general}"), "of a run of one stage"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED)
def test_what_cannot_be(
    run: Run, model: Path, domain: Path, general: Path, tmp_path: Path, given: tuple[str, ...], said: str
) -> None:
    named = [one.format(general=general, model=model) for one in given]
    ran = run("pretrain", domain, "--out", tmp_path / "run", "--steps", 9, *named)
    assert ran.code == 1
    assert said in ran.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_new_tokens_are_those_of_a_model(run: Run, domain: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(NEW)
    ran = run("pretrain", domain, "--out", tmp_path / "run", "--steps", 2, "--add-tokens", tmp_path / "words.txt")
    assert ran.code == 2
    assert "--add-tokens goes with --start" in ran.err
