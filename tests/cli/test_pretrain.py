"""Every published run at toy size, a run from a file, and pretraining that goes on from a model: through the command line."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.cli.conftest import WORDS, Refused, Run
from tests.cli.test_training import assert_same_logits, settings, write_texts

import bothways
from bothways.config import from_json
from bothways.data.curation.domain import Domain, DomainSelection
from bothways.families.family import Heads
from bothways.recipes.published import RECIPES
from bothways.recipes.runs import Pretraining, Staged
from bothways.training import log

# What a recipe asks of its text beside the text itself: tunbert, rexbert and gottbert have tests of their own
OTHERS = [name for name in RECIPES if name not in ("tunbert", "rexbert", "gottbert")]
# Their model tells replaced tokens, and predicts none
DETECTORS = ("electra", "electra_small", "deberta_v3", "modernbert_rtd")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Documents of very different lengths, a line each."""
    draw = random.Random(0)
    lines = [" ".join(draw.choices(WORDS.split(), k=draw.choice((8, 30, 60, 200)))) for _ in range(120)]
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OTHERS)
def test_a_toy_of_every_recipe(run: Run, texts: Path, tmp_path: Path, recipe: str) -> None:
    out = tmp_path / "run"
    command = ("pretrain", texts, "--out", out, "--recipe", recipe, "--size", "toy", "--set", "source.split=line", "--json")
    said = check_toy(run, command, out, recipe)
    if recipe != "cramming":  # which has seconds, and makes as many steps as it can
        assert said["steps"] == 12
    again = run(*command)
    assert json.loads(again.out) == said


def check_toy(run: Run, command: tuple[object, ...], out: Path, recipe: str) -> dict:  # type: ignore[type-arg]
    ran = run(*command)
    assert ran.code == 0, ran
    said = json.loads(ran.out)
    stages = RECIPES[recipe].described["stages"].split(", ")
    expected = [f"{number}-{name}" for number, name in enumerate(stages, start=1)] if len(stages) > 1 else [None]
    lines = log.read(out)
    assert list(dict.fromkeys(line.get("stage") for line in lines)) == expected
    model = bothways.load(out / "model", strict=True)
    assert (out / "report.html").exists()
    if recipe in DETECTORS:
        assert {"loss", "generator_accuracy", "discriminator_accuracy"} <= said["evaluation"].keys()
        assert len(model.encode(["the cat"])) == 1
        return said
    pairs = {"bert_next_sentence": "next_sentence", "cubert": "next_sentence", "albert": "sentence_order"}.get(recipe)
    beside = {f"{pairs}/loss", f"{pairs}/accuracy"} if pairs else set()
    if recipe == "retromae":
        beside = {"encoder", "decoder"}
    if recipe == "ernie_gram":
        beside = {"ngram_loss", "fine", "fine_accuracy", "ngrams", "shortened", "generator", "generator_accuracy", "replaced"}
        assert min(said["evaluation"]["ngrams"], said["evaluation"]["shortened"]) > 0
    assert said["evaluation"].keys() == {"loss", "accuracy"} | beside
    assert len(model.fill(f"the cat {model.tokenizer.tokens['mask_token']}")[0]) == 5  # type: ignore[union-attr]
    return said


@pytest.mark.slow
def test_a_toy_of_gottbert(run: Run, tmp_path: Path, shared: Path) -> None:
    """On German novels; umlauts, eszett and what is in no novel come back as they were."""
    few = tmp_path / "few.jsonl"
    with gzip.open(shared / "data" / "text" / "novels-deu.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(next(file)) for _ in range(3)]
    few.write_text("".join(json.dumps({"text": row["text"][:60_000]}) + "\n" for row in rows))
    out = tmp_path / "run"
    options = ("--recipe", "gottbert", "--size", "toy", "--set", "source.split=paragraph", "--set", "tokenizer.vocab_size=1000")
    check_toy(run, ("pretrain", few, "--out", out, *options, "--set", "encoder.vocab_size=1000", "--json"), out, "gottbert")
    tokenizer = bothways.load(out / "model").tokenizer
    assert tokenizer is not None
    text = "Süße Äpfel fürs Mädchen, groß und übergroß \N{GRINNING FACE}"
    assert tokenizer.decode(tokenizer.encode([text], specials=False)[0]) == text
    assert_same_logits(out / "model")


@pytest.mark.slow
def test_a_toy_of_tunbert(run: Run, tmp_path: Path) -> None:
    """A line is a document, and how often each was read is said, printed and reported."""
    texts = tmp_path / "comments.txt"
    draw = random.Random(0)
    texts.write_text("".join(" ".join(draw.choices(WORDS.split(), k=draw.randint(2, 9))) + "\n" for _ in range(60)))
    out = tmp_path / "run"
    said = check_toy(run, ("pretrain", texts, "--out", out, "--recipe", "tunbert", "--size", "toy", "--json"), out, "tunbert")
    assert json.loads((out / "data" / "manifest.json").read_text())["documents"] == 60
    assert said["epochs"] > 2
    told = run("pretrain", texts, "--out", out, "--recipe", "tunbert", "--size", "toy")
    assert f"{said['epochs']:.2f} epochs" in told.out
    assert "gone through" in told.err
    assert "passes" in (out / "report.html").read_text()


@pytest.mark.slow
def test_a_toy_of_rexbert(run: Run, texts: Path, tmp_path: Path) -> None:
    """Labels make a classifier, it chooses the domain's documents, and the last phase alone reads them."""
    draw = random.Random(0)
    sea = ["tide", "harbour", "anchor", "sail", "captain", "storm", "crew", "deck", "wave", "shore"]

    def document(kind: str) -> str:
        return " ".join(draw.choices(sea if kind == "sea" else WORDS.split(), k=40))

    labels = tmp_path / "labels.jsonl"
    kinds = ["sea", "land"] * 60
    labels.write_text("".join(json.dumps({"text": document(kind), "label": kind}) + "\n" for kind in kinds))
    domain = tmp_path / "sea"
    assert run("domain", "train", labels, "--wanted", "sea", "--out", domain).code == 0
    told = Domain.load(domain).file.held_out
    assert min(told.precision.value or 0.0, told.recall.value or 0.0) >= 0.9  # on labels that it has not seen

    select, crawl = DomainSelection(folder=str(domain)).open(), [document(kind) for kind in ["sea", "land", "land"] * 20]
    chosen = [text for text in crawl if not select(text).reason]
    meant = [text for text in crawl if text.split()[0] in sea]
    assert set(meant) <= set(chosen)
    assert len(meant) >= 0.9 * len(chosen)
    picked = tmp_path / "picked.jsonl"
    picked.write_text("".join(json.dumps({"text": text}) + "\n" for text in chosen))
    out = tmp_path / "run"
    command = ("pretrain", texts, "--out", out, "--recipe", "rexbert", "--size", "toy", "--text", f"domain={picked}", "--json")
    check_toy(run, (*command, "--set", "base.source.split=line"), out, "rexbert")
    assert json.loads((out / "3-domain" / "data" / "manifest.json").read_text())["documents"] == len(chosen)
    assert not (out / "2-context" / "data").exists()


# -- runs of stages, from a file, with changes -------------------------------------------------------


@pytest.mark.slow
def test_a_run_from_a_file_is_the_run(run: Run, texts: Path, tmp_path: Path) -> None:
    options = ("--recipe", "modernbert", "--size", "toy", "--steps", 3, "--set", "source.split=line")
    first = run("pretrain", texts, "--out", tmp_path / "a", *options, "--dry-run")
    assert first.code == 0, first
    file = tmp_path / "run.json"
    file.write_text(first.out)
    assert from_json(Staged, first.out, "stdout").base.source.split == "line"  # type: ignore[union-attr]
    changed = run("pretrain", file, "--out", tmp_path / "b", "--set", "training.seed=3", "--dry-run")
    read = from_json(Staged, changed.out, "stdout")
    assert {one.training.seed for one in read.runs} == {3}
    assert run("pretrain", file, "--out", tmp_path / "b").code == 0
    assert run("pretrain", texts, "--out", tmp_path / "a", *options).code == 0
    same = [(tmp_path / folder / "model" / "model.safetensors").read_bytes() for folder in ("a", "b")]
    assert same[0] == same[1]


def test_a_field_of_one_stage_and_of_all(run: Run, texts: Path, tmp_path: Path) -> None:
    ran = run(
        *("pretrain", texts, "--out", tmp_path / "run", "--recipe", "modernbert", "--size", "toy", "--dry-run"),
        *("--set", "masking.rate=0.2", "--set", "stages.2.max_length=128", "--set", "training.log_every=1"),
    )  # fmt: skip
    runs = from_json(Staged, ran.out, "stdout").runs
    assert [one.masking.rate for one in runs] == [0.2] * 3
    assert [one.max_length for one in runs] == [64, 256, 128]
    assert [one.training.log_every for one in runs] == [1, 1, 1]


REFUSED = [
    (("--recipe", "modernbert", "--steps", 2), "too small for 3 stages"),
    (("--recipe", "modernbert", "--steps", 9, "--text", "end=x"), "the stages are general, context, anneal"),
    (("--steps", 9, "--text", "end=x"), "this run has one stage"),
    (("--recipe", "modernbert", "--steps", 9, "--set", "stages.1.max_lenght=9"), "did you mean 'max_length'"),
    (("--recipe", "modernbert", "--steps", 9, "--start", "somewhere"), "choose a recipe of one stage"),
    (("--steps", 9, "--start", "no/such/folder"), "no/such/folder: no such folder"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_what_stages_cannot_do(refused: Refused, texts: Path, tmp_path: Path, options: tuple[object, ...], said: str) -> None:
    assert said in refused("pretrain", texts, "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_a_file_says_all_of_a_run(run: Run, texts: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(run("pretrain", texts, "--out", tmp_path / "a", "--steps", 3, "--dry-run").out)
    ran = run("pretrain", file, "--out", tmp_path / "b", "--steps", 5)
    assert ran.code == 2
    assert "--set" in ran.err
    file.write_text('{"family": "bert"}')
    assert run("pretrain", file, "--out", tmp_path / "b").code == 1
    assert run("pretrain", tmp_path / "none.json", "--out", tmp_path / "b", "--steps", 5).code == 1


# -- going on from a model ---------------------------------------------------------------------------


@pytest.mark.slow
def test_going_on_from_a_model(run: Run, tmp_path: Path) -> None:
    """Network, tokenizer and weights are the model's, and it goes on to learn the new text."""
    texts, out = write_texts(tmp_path / "texts"), tmp_path / "run"
    assert run("pretrain", texts, "--out", tmp_path / "first", "--recipe", "bert", "--steps", 3, *settings()).code == 0
    model = tmp_path / "first" / "model"
    ran = run("pretrain", texts, "--out", out, "--start", model, "--steps", 2, "--dry-run")
    read = from_json(Pretraining, ran.out, "stdout")
    assert (read.family, read.start, read.encoder) == ("bert", str(model), bothways.load(model).spec.encoder)
    still = ("--set", "training.optimizer.lr=1e-12", "--set", "training.optimizer.weight_decay=0")
    assert run("pretrain", texts, "--out", out, "--start", model, "--steps", 1, *still).code == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (model, out / "model"))
    assert before.keys() == after.keys()
    assert all(abs(before[name] - after[name]).max() < 1e-9 for name in before)
    assert (model / "tokenizer.json").read_bytes() == (out / "model" / "tokenizer.json").read_bytes()
    moved = run("pretrain", texts, "--out", tmp_path / "moved", "--start", model, "--steps", 2)
    assert moved.code == 0, moved
    weights = load_file(tmp_path / "moved" / "model" / "model.safetensors")
    assert any(not before[name].equal(weights[name]) for name in before)


@pytest.mark.slow
def test_a_discriminator_goes_on_with_its_generator(run: Run, tmp_path: Path) -> None:
    """Both are saved again, in the place where the next run finds them."""
    texts, first, out = write_texts(tmp_path / "texts"), tmp_path / "first", tmp_path / "run"
    assert run("pretrain", texts, "--out", first, "--recipe", "electra_small", "--steps", 2, *settings()).code == 0
    command = ("pretrain", texts, "--out", out, "--from", first / "model", "--steps", 1)
    ran = run(*command, "--generator", first / "generator", "--set", "training.optimizer.lr=1e-12")
    assert ran.code == 0, ran
    for name in ("model", "generator"):
        before, after = (load_file(folder / name / "model.safetensors") for folder in (first, out))
        assert before.keys() == after.keys()
        assert all(abs(before[one] - after[one]).max() < 1e-6 for one in before)
    alone = run("pretrain", texts, "--out", tmp_path / "other", "--generator", first / "generator", "--steps", 1)
    assert alone.code == 2
    assert "--generator goes with --start" in alone.err


def test_a_sentence_embedder_gets_a_fresh_head(run: Run, model: Path, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts")
    bothways.load(model).with_heads(Heads()).save(model)
    assert bothways.load(model).spec.heads.masked_lm is None
    ran = run("pretrain", texts, "--out", tmp_path / "run", "--start", model, "--steps", 1)
    assert ran.code == 0, ran
    assert bothways.load(tmp_path / "run" / "model").spec.heads.masked_lm is not None


def test_a_model_of_another_shape_is_refused(run: Run, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts")
    assert run("pretrain", texts, "--out", tmp_path / "first", "--recipe", "bert", "--steps", 1, *settings()).code == 0
    model = tmp_path / "first" / "model"
    command = ("pretrain", texts, "--out", tmp_path / "run", "--start", model, "--steps", 1)
    ran = run(*command, "--set", "encoder.layers.0.mlp.size=64")
    assert ran.code == 1
    assert "start: encoder.layers.0.mlp" in ran.err
    assert "this run's is" in ran.err
