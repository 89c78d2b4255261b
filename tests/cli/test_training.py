"""`pretrain` and `finetune` end to end, on little text and a tiny network."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.cli.conftest import WORDS, Refused, Run

import bothways
from bothways.config import from_json
from bothways.families import modernbert
from bothways.families.family import Heads, Spec
from bothways.model.model import Model
from bothways.recipes.published import RECIPES
from bothways.recipes.runs import Embedding, Finetuning, Pretraining
from bothways.training.record import NAME as RECORD

TINY = (
    "encoder.num_layers=1",
    "batching.tokens=512",
    "tokenizer.vocab_size=300",
    "encoder.vocab_size=320",
    "max_length=32",
)


def settings(*changes: str) -> list[str]:
    return [part for change in (*TINY, *changes) for part in ("--set", change)]


def write_texts(folder: Path, count: int = 12, seed: int = 0) -> Path:
    draw = random.Random(seed)
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:02}.txt").write_text(" ".join(draw.choices(WORDS.split(), k=100)))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_csv(path: Path, names: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts")


# -- pretrain -----------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["bert", "roberta", "modernbert_short"])
def test_pretrain(run: Run, texts: Path, tmp_path: Path, recipe: str) -> None:
    out = tmp_path / "run"
    command = ("pretrain", texts, "--out", out, "--recipe", recipe, "--steps", 4, "--json", *settings())
    ran = run(*command)
    assert ran.code == 0, ran
    said = json.loads(ran.out)
    assert (said["steps"], said["model"], said["report"]) == (4, str(out / "model"), str(out / "report.html"))
    assert set(said["evaluation"]) == {"loss", "accuracy"}

    model = bothways.load(out / "model")
    assert (model.family.name, model.spec.encoder.num_layers, model.spec.encoder.vocab_size) == (
        recipe.removesuffix("_short"),
        1,
        320,
    )
    assert_same_logits(out / "model")
    page = (out / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org/", "")  # the name of SVG; nothing is fetched for it
    assert "https://" not in page

    weights, log = (out / "model" / "model.safetensors").read_bytes(), (out / "log.jsonl").read_bytes()
    again = run(*command)
    assert again.code == 0, again
    assert json.loads(again.out) == said
    assert (out / "model" / "model.safetensors").read_bytes() == weights
    assert (out / "log.jsonl").read_bytes() == log


def assert_same_logits(folder: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    text = "the cat sat under a tree"
    theirs, tokenizer = AutoModelForMaskedLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ours = bothways.load(folder)
    batch = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**batch).logits[0]
        found = ours.masked_lm(torch.from_numpy(ours.hidden_states([text])[0]))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_dry_run_of_pretrain(run: Run, texts: Path, tmp_path: Path) -> None:
    ran = run("pretrain", texts, "--out", tmp_path / "run", "--tokens", 99, "--dry-run", *settings("training.optimizer.lr=0.25"))
    assert ran.code == 0, ran
    read = from_json(Pretraining, ran.out, "stdout")
    assert (read.max_length, read.training.optimizer.lr, read.encoder.num_layers) == (32, 0.25, 1)
    assert not (tmp_path / "run").exists()


def test_a_table_of_text(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    table.write_text("".join(json.dumps({"body": WORDS, "n": number}) + "\n" for number in range(12)))
    ran = run("pretrain", table, "--column", "body", "--out", tmp_path / "run", "--tokens", 600, "--json", *settings())
    assert ran.code == 0, ran
    assert json.loads(ran.out)["tokens"] >= 600


def test_recipes(run: Run) -> None:
    ran = run("recipes", "--json")
    assert ran.code == 0
    listed = json.loads(ran.out)
    assert set(listed) == set(RECIPES)
    assert listed["modernbert"]["stages"] == "general, context, anneal"
    assert listed["ettin"]["sizes"].startswith("base (17M)")
    assert all(name in run("recipes").out for name in RECIPES)


def test_text_added_before_a_run_began_is_read(run: Run, tmp_path: Path) -> None:
    """A first attempt that failed leaves shards behind; they are not taken for the new text's."""
    texts, out = write_texts(tmp_path / "texts", count=1), tmp_path / "run"
    command = ("pretrain", texts, "--out", out, "--steps", 1, *settings())
    ran = run(*command)
    assert ran.code == 1
    assert "1 document" in ran.err.splitlines()[-1], ran.err
    assert (out / "data").exists()
    (texts / "more.txt").write_text("zebras graze " * 50)
    assert run(*command).code == 0
    assert json.loads((out / "data" / "manifest.json").read_text())["documents"] == 2
    assert '"zebras"' in (out / "tokenizer" / "tokenizer.json").read_text().replace("Ġ", "")


def test_shards_of_unknown_origin_are_refused(run: Run, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "data").mkdir(parents=True)
    (out / "data" / "mine.txt").write_text("kept")
    ran = run("pretrain", texts, "--out", out, "--steps", 1, *settings())
    assert ran.code == 1
    assert str(out / "data") in ran.err
    assert contents(out) == {"data/mine.txt": b"kept"}


# -- finetune -----------------------------------------------------------------------------------


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Whether cats or fish are spoken of."""
    rows = [(f"the {animal} {verb}", kind) for animal, kind in (("cat", "a"), ("fish", "b")) for verb in ("sat", "ran", "swim")]
    return write_csv(tmp_path / "rows.csv", ("text", "label"), rows * 4)


def test_classification(run: Run, model: Path, classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ("finetune", model, classes, "--held-out", classes, "--out", out, "--epochs", 20, "--batch", 8, "--lr", 5e-3)
    ran = run(*command, "--json")
    assert ran.code == 0, ran
    said = json.loads(ran.out)
    assert said["steps"] == 60  # 24 rows, 20 times, 8 a step
    assert said["evaluation"]["accuracy"] > 0.9
    trained = bothways.load(out / "model")
    assert trained.spec.labels == ("a", "b")
    assert trained.predict(["the cat ran", "the fish ran"]).argmax(1).tolist() == [0, 1]
    new = tmp_path / "new.txt"
    new.write_text("the fish ran\nthe cat ran\n", encoding="utf-8")
    shown = run("classify", out / "model", new)
    assert [line.split()[1:] for line in shown.out.splitlines()] == [["b", "the", "fish", "ran"], ["a", "the", "cat", "ran"]]
    assert run("classify", out / "model", new, "--out", tmp_path / "new.csv").code == 0
    with open(tmp_path / "new.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["where"], row["label"]) for row in rows] == [(f"{new}:1", "b"), (f"{new}:2", "a")]
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)
    assert "exists already" in run("classify", out / "model", new, "--out", tmp_path / "new.csv").err


def test_a_classifier_pools_as_it_is_told(run: Run, refused: Refused, model: Path, classes: Path, tmp_path: Path) -> None:
    """Where its family can say so: BERT's cannot."""
    command = ("finetune", model, classes, "--steps", 1, "--out", tmp_path / "run", "--set", "pooling=mean")
    assert "cannot express this classifier head's pooling" in refused(*command)
    tokenizer = bothways.load(model).tokenizer
    assert tokenizer is not None
    trunk = modernbert.modernbert(
        tokenizer.vocab_size, hidden_size=24, num_layers=1, heads=3, intermediate_size=20, max_length=16
    )
    made = Model.create(modernbert.FAMILY, Spec(trunk, Heads()), tokenizer).save(tmp_path / "made")
    for pooling in ("mean", "cls"):
        out = tmp_path / pooling
        ran = run("finetune", made, classes, "--steps", 1, "--out", out, "--set", f"pooling={pooling}")
        assert ran.code == 0, ran
        head = bothways.load(out / "model").spec.heads.classifier
        assert head is not None
        assert head.pooling == pooling


def test_pairs(run: Run, model: Path, tmp_path: Path) -> None:
    rows = [("the cat", "sat", 1), ("the dog", "ran", 0)] * 4
    table = write_csv(tmp_path / "rows.csv", ("q", "a", "match"), rows)
    ran = run("finetune", model, table, "--pair", "q,a", "--label", "match", "--out", tmp_path / "run", "--steps", 3)
    assert ran.code == 0, ran
    probabilities = bothways.load(tmp_path / "run" / "model").predict([("the cat", "sat")])
    assert probabilities.shape == (1, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


def test_regression(run: Run, model: Path, tmp_path: Path) -> None:
    rows = [("the cat", 3.0), ("the dog", -1.0)] * 8
    table = write_csv(tmp_path / "rows.csv", ("text", "label"), rows)
    ran = run("finetune", model, table, "--regression", "--out", tmp_path / "run", "--steps", 30, "--batch", 16, "--lr", 2e-2)
    assert ran.code == 0, ran
    cat, dog = bothways.load(tmp_path / "run" / "model").predict(["the cat", "the dog"]).ravel()
    assert cat > 1 > dog


def test_sentence_vectors(run: Run, model: Path, tmp_path: Path) -> None:
    rows = [("the cat", "a cat"), ("the dog", "a dog"), ("the sea", "a sea"), ("fish", "swim")]
    table = write_csv(tmp_path / "rows.csv", ("anchor", "positive"), rows)
    command = ("finetune", model, table, "--contrast", "anchor,positive", "--out", tmp_path / "run")
    ran = run(*command, "--steps", 20, "--batch", 4, "--lr", 5e-3, "--json")
    assert ran.code == 0, ran
    assert json.loads(ran.out)["steps"] == 20
    trained = bothways.load(tmp_path / "run" / "model")
    anchors, positives = (trained.encode([row[side] for row in rows]) for side in (0, 1))
    np.testing.assert_allclose(np.linalg.norm(anchors, axis=1), 1, atol=1e-5)
    assert (anchors @ positives.T).argmax(1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("extra", "kind"), [((), Finetuning), (("--contrast", "text,label"), Embedding)])
def test_dry_run_of_finetune(run: Run, model: Path, classes: Path, tmp_path: Path, extra: tuple[str, ...], kind: type) -> None:
    ran = run("finetune", model, classes, "--out", tmp_path / "run", "--epochs", 2, "--batch", 8, *extra, "--dry-run")
    assert ran.code == 0, ran
    assert from_json(kind, ran.out, "stdout").training.budget.count == 6
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("extra", [(), ("--contrast", "text,label")])
@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        (("batching.samples=4",), 18),
        (("training.accumulate=3",), 3),
        (("batching.samples=4", "training.accumulate=2"), 9),
        (("batching.samples=23",), 6),  # 24 rows are two batches
        (("training.budget.count=7",), 7),
        (("training.budget.count=1",), 1),
        (('training.budget={"type": "steps", "count": 1}',), 1),
    ],
)
def test_epochs_count_what_set_changes(
    run: Run, model: Path, classes: Path, tmp_path: Path, extra: tuple[str, ...], changes: tuple[str, ...], steps: int
) -> None:
    options = [part for change in changes for part in ("--set", change)]
    ran = run("finetune", model, classes, "--out", tmp_path / "run", "--batch", 8, *extra, *options, "--dry-run")
    assert ran.code == 0, ran
    assert json.loads(ran.out)["training"]["budget"]["count"] == steps


@pytest.mark.parametrize("budget", [("--steps", "5"), ("--set", "training.budget.count=5")])
def test_epochs_and_a_budget_contradict(run: Run, model: Path, classes: Path, tmp_path: Path, budget: tuple[str, str]) -> None:
    ran = run("finetune", model, classes, "--out", tmp_path / "run", "--epochs", 2, *budget)
    assert ran.code == 2
    assert "--epochs goes with none of" in ran.err
    assert not (tmp_path / "run").exists()


# -- what cannot be used ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "culprits"),
    [
        (("training.optimiser.lr=1",), ("optimiser", "did you mean 'optimizer'")),
        (("training.optimizer.lr=fast",), ("training.optimizer", "lr")),
        (("masking.rate=1.5",), ("masking", "rate")),
        (("encoder.hidden_size=130",), ("130", "heads")),
        (("max_length=4096", "batching.tokens=4096"), ("max_length 4096", "encoder.max_length 128")),
        (("max_length=128", "batching.tokens=64"), ("max_length 128", "batching.tokens 64")),
    ],
)
def test_contradictory_run(run: Run, texts: Path, tmp_path: Path, changes: tuple[str, ...], culprits: tuple[str, ...]) -> None:
    ran = run("pretrain", texts, "--out", tmp_path / "run", "--steps", 1, *settings(*changes))
    assert (ran.code, ran.out) == (1, "")
    error = ran.err.splitlines()[-1]
    assert error.startswith("error: ")
    assert all(culprit in error for culprit in culprits), error
    assert not (tmp_path / "run").exists()


def test_tokenizer_larger_than_the_network(run: Run, texts: Path, tmp_path: Path) -> None:
    ran = run("pretrain", texts, "--out", tmp_path / "run", "--steps", 1, *settings("encoder.vocab_size=260"))
    assert ran.code == 1
    assert "encoder.vocab_size is 260" in ran.err.splitlines()[-1]


def test_folder_of_another_run(run: Run, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run("pretrain", texts, "--out", out, "--steps", 2, *settings()).code == 0
    before = contents(out)
    for other in ("training.optimizer.lr=0.5", "masking.rate=0.2"):
        ran = run("pretrain", texts, "--out", out, "--steps", 2, *settings(other))
        assert ran.code == 1
        error = ran.err.splitlines()[-1]
        assert str(out / RECORD) in error
        assert other.split("=")[0] in error
    shutil.copytree(texts, tmp_path / "other")
    assert run("pretrain", tmp_path / "other", "--out", out, "--steps", 2, *settings()).code == 1
    assert contents(out) == before


def test_empty_corpus(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    assert str(tmp_path / "texts") in refused("pretrain", tmp_path / "texts", "--out", tmp_path / "run", "--steps", 1)
    assert not (tmp_path / "run").exists()


def test_missing_column_of_a_corpus(run: Run, classes: Path, tmp_path: Path) -> None:
    ran = run("pretrain", classes, "--column", "body", "--out", tmp_path / "run", "--steps", 1)
    assert ran.code == 1
    assert "column 'body'" in ran.err.splitlines()[-1]
    assert str(classes) in ran.err.splitlines()[-1]


def test_unknown_recipe(refused: Refused, texts: Path, tmp_path: Path) -> None:
    error = refused("pretrain", texts, "--recipe", "brt", "--out", tmp_path / "run", "--steps", 1)
    assert "brt" in error
    assert "modernbert" in error


def test_label_unseen_in_training(refused: Refused, model: Path, classes: Path, tmp_path: Path) -> None:
    held = write_csv(tmp_path / "held.csv", ("text", "label"), [("the cat", "a"), ("the dog", "c")])
    error = refused("finetune", model, classes, "--held-out", held, "--out", tmp_path / "run")
    assert f"{held}:3" in error
    assert "'c'" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("extra", "culprit"),
    [
        (("--text", "body"), "'body'"),
        (("--label", "stars"), "'stars'"),
        (("--pair", "text,body"), "'body'"),
        (("--contrast", "text,body"), "'body'"),
        (("--regression",), "label 'a' is not a number"),
        (("--set", "columns.txt=x"), "'txt'"),
    ],
)
def test_columns(refused: Refused, model: Path, classes: Path, tmp_path: Path, extra: tuple[str, ...], culprit: str) -> None:
    assert culprit in refused("finetune", model, classes, *extra, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_over_the_length_are_refused_or_cut(run: Run, refused: Refused, model: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "rows.csv", ("text", "label"), [("the cat", 0), (WORDS, 1)])
    command = ("finetune", model, table, "--out", tmp_path / "run", "--steps", 1)
    assert f"{table}:3" in refused(*command)
    assert not (tmp_path / "run").exists()
    ran = run(*command, "--overflow", "cut")
    assert ran.code == 0, ran
    assert "1 of 2 rows were cut" in ran.err


def test_one_label(refused: Refused, model: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "rows.csv", ("text", "label"), [("the cat", 0), ("the dog", 0)])
    assert str(table) in refused("finetune", model, table, "--out", tmp_path / "run")


@pytest.mark.parametrize("budget", [(), ("--steps", "1", "--tokens", "9"), ("--hours", "1", "--steps", "1"), ("--steps", "0")])
def test_budget_of_pretrain(run: Run, texts: Path, tmp_path: Path, budget: tuple[str, ...]) -> None:
    ran = run("pretrain", texts, "--out", tmp_path / "run", *budget)
    assert (ran.code, ran.out) == (2, "")
    assert "--steps" in ran.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "extra",
    [
        ("--pair", "text"),
        ("--pair", "text,"),
        ("--pair", "a,b,c"),
        ("--contrast", "text"),
        ("--contrast", "text,label", "--pair", "text,label"),
        ("--contrast", "text,label", "--regression"),
        ("--steps", "1", "--tokens", "5"),
    ],
)
def test_usage_of_finetune(run: Run, model: Path, classes: Path, tmp_path: Path, extra: tuple[str, ...]) -> None:
    ran = run("finetune", model, classes, "--out", tmp_path / "run", *extra)
    assert (ran.code, ran.out) == (2, "")
    assert extra[0] in ran.err
    assert not (tmp_path / "run").exists()
