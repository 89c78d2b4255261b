"""`distil` end to end, on little text and tiny networks."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from tests.cli.conftest import Refused, Run, save
from tests.cli.test_training import assert_same_logits, write_csv, write_texts

import bothways
from bothways.config import from_json
from bothways.data.masking import DISTILBERT
from bothways.families import BY_NAME
from bothways.families.electra import electra
from bothways.families.family import Heads, Spec
from bothways.layers.replaced_token import ReplacedTokenHead
from bothways.model.model import Model
from bothways.recipes.runs import Distillation, TaskDistillation

SMALL = ("--set", "batching.tokens=256")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Whether cats or fish are spoken of."""
    said = [(f"the {animal} {verb}", kind) for animal, kind in (("cat", "a"), ("fish", "b")) for verb in ("sat", "ran", "swim")]
    return write_csv(tmp_path / "rows.csv", ("text", "label"), said * 4)


@pytest.fixture
def classifier(run: Run, model: Path, rows: Path, tmp_path: Path) -> Path:
    """A teacher that has learned the rows."""
    ran = run("finetune", model, rows, "--out", tmp_path / "teacher", "--epochs", 20, "--batch", 8, "--lr", 5e-3)
    assert ran.code == 0, ran
    return tmp_path / "teacher" / "model"


# -- on text ------------------------------------------------------------------------------------


def test_a_distilbert_of_a_bert(run: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    """The student is one that transformers loads; the same command finds it finished."""
    out = tmp_path / "run"
    command = ("distil", model, texts, "--layers", 1, "--out", out, "--steps", 4, "--json", *SMALL)
    ran = run(*command)
    assert ran.code == 0, ran
    said = json.loads(ran.out)
    assert (said["steps"], said["report"]) == (4, str(out / "report.html"))
    assert set(said["evaluation"]) == {"kl", "masked_lm", "cosine", "accuracy"}
    student = bothways.load(out / "model", strict=True)
    assert (student.family.name, student.spec.encoder.num_layers) == ("distilbert", 1)
    assert_same_logits(out / "model")
    names = {row["name"] for row in json.loads((out / "run.json").read_text())["parameters"]}
    assert names
    assert not any("teacher" in name for name in names)
    weights = (out / "model" / "model.safetensors").read_bytes()
    again = run(*command)
    assert again.code == 0, again
    assert json.loads(again.out) == said
    assert (out / "model" / "model.safetensors").read_bytes() == weights


def test_it_goes_on_where_it_stood(run: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    """From a checkpoint in its middle it comes to the same weights, bit for bit."""
    out = tmp_path / "run"
    checkpoints = ("--set", "training.checkpoint_every=2", "--set", "training.keep=3")
    command = ("distil", model, texts, "--layers", "0,1", "--out", out, "--steps", 6, *SMALL, *checkpoints)
    assert run(*command).code == 0
    whole = (out / "model" / "model.safetensors").read_bytes()
    places = sorted((out / "checkpoints").glob("step-*"), key=lambda place: int(place.name.removeprefix("step-")))
    for place in places[1:]:
        shutil.rmtree(place)
    shutil.rmtree(out / "model")
    ran = run(*command)
    assert ran.code == 0, ran
    assert (out / "model" / "model.safetensors").read_bytes() == whole


def test_a_student_of_another_trunk(run: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    """A fresh ModernBERT learns relations of a BERT; its masked-language head, which nothing trained, is not saved."""
    network = ("--recipe", "modernbert_short", "--size", "toy", "--method", "minilm_v2")
    command = ("distil", model, texts, *network, "--steps", 3, "--json", *SMALL)
    ran = run(*command, "--set", "method.relation_heads=5", "--out", tmp_path / "run")
    assert ran.code == 1, ran
    assert "relation_heads: 5 does not divide" in ran.err
    ran = run(*command, "--set", "method.relation_heads=4", "--out", tmp_path / "other")
    assert ran.code == 0, ran
    assert set(json.loads(ran.out)["evaluation"]) == {"queries", "keys", "values"}
    student = bothways.load(tmp_path / "other" / "model")
    assert (student.family.name, student.spec.heads) == ("modernbert", Heads())


def test_a_student_that_is_there(run: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    """A wider one of the same tokenizer, whose scores and hidden states are compared with the teacher's."""
    student = save(tmp_path / "student", seed=3, size=30)
    command = ("distil", model, texts, "--student", student, "--method", "tinybert", "--steps", 3, "--json", *SMALL)
    ran = run(*command, "--out", tmp_path / "run")
    assert ran.code == 0, ran
    assert set(json.loads(ran.out)["evaluation"]) == {"attention", "hidden"}
    assert bothways.load(tmp_path / "run" / "model").spec.encoder.hidden_size == 30


@pytest.mark.parametrize(
    ("recipe", "family"),
    [
        ("albert", "albert"),
        ("electra_small", "electra"),
        ("deberta_v3", "deberta-v2"),
        ("modernbert_rtd", "modernbert"),
        ("ernie_gram", "ernie_gram"),
    ],
)
def test_a_recipe_gives_its_network_alone(run: Run, model: Path, texts: Path, tmp_path: Path, recipe: str, family: str) -> None:
    """What else it learns from (pairs, replaced tokens, n-grams) a student does not; its head is for masked tokens, and saved."""
    learned = ("--method", "minilm_v2", "--set", "method.relation_heads=4", "--set", "method.masked_lm=1")
    command = ("distil", model, texts, "--recipe", recipe, "--size", "toy", *learned, "--steps", 1, "--json", *SMALL)
    ran = run(*command, "--out", tmp_path / "run")
    assert ran.code == 0, ran
    assert set(json.loads(ran.out)["evaluation"]) == {"queries", "keys", "values", "masked_lm", "accuracy"}
    student = bothways.load(tmp_path / "run" / "model", strict=True)
    assert (student.family.name, student.spec.heads.present()) == (family, {"masked_lm"})
    assert len(student.fill("the [MASK] sat", top=2)[0]) == 2
    assert not (tmp_path / "run" / "generator").exists()


def test_rare_tokens_more_often(run: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    """The masks of DistilBERT's code, which need to know how often each token occurs."""
    units = ("--set", 'masking.units={"type": "by_frequency"}', "--set", 'masking.count={"type": "per_batch"}')
    command = ("distil", model, texts, "--layers", 1, "--steps", 2, "--out", tmp_path / "run", *SMALL, *units)
    dry = from_json(Distillation, run(*command, "--dry-run").out, "stdout")
    assert dry.base.masking == DISTILBERT
    ran = run(*command, "--json")
    assert ran.code == 0, ran
    assert "counting how often each token occurs" in ran.err
    assert math.isfinite(json.loads(ran.out)["evaluation"]["masked_lm"])


def test_a_student_that_told_replaced_tokens(run: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    """An ELECTRA begins as its own encoder, and gets a head for masked tokens."""
    teacher = bothways.load(model)
    encoder = electra(teacher.spec.encoder.vocab_size, 12, 24, 2, 3, 20, max_length=16)
    heads = Heads(replaced_token=ReplacedTokenHead())
    student = Model.create(BY_NAME["electra"], Spec(encoder, heads), teacher.tokenizer)
    student.save(tmp_path / "student")
    command = ("distil", model, texts, "--student", tmp_path / "student", "--steps", 1, *SMALL)
    ran = run(*command, "--set", "training.optimizer.lr=1e-30", "--out", tmp_path / "run")
    assert ran.code == 0, ran
    found = bothways.load(tmp_path / "run" / "model", strict=True)
    assert found.spec.heads.present() == {"masked_lm"}
    weights = found.encoder.state_dict()
    assert all(torch.allclose(tensor, weights[name], atol=1e-6) for name, tensor in student.encoder.state_dict().items())


def test_held_out_text_has_its_own_rate(run: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    command = ("distil", model, texts, "--layers", 1, "--steps", 1, "--json", *SMALL)
    found = [
        json.loads(run(*command, "--set", f"held_out_rate={rate}", "--out", tmp_path / rate).out)["evaluation"]["masked_lm"]
        for rate in ("0.15", "0.9")
    ]
    assert found[0] != pytest.approx(found[1], rel=1e-3)


def test_other_tokens_are_refused(run: Run, refused: Refused, model: Path, texts: Path, tmp_path: Path) -> None:
    student = save(tmp_path / "student", words=("some other words of another language",))
    said = refused("distil", model, texts, "--student", student, "--method", "minilm", "--steps", 3, "--out", tmp_path / "run")
    assert "teacher and student must cut text into the same tokens" in said


def test_a_dry_run(run: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    options = ("--layers", 2, "--lr", 0.25, "--set", "training.seed=4", "--set", "method.temperature=3", "--dry-run")
    ran = run("distil", model, texts, "--out", tmp_path / "run", "--tokens", 99, *options)
    assert ran.code == 0, ran
    read = from_json(Distillation, ran.out, "stdout")
    assert (read.base.training.optimizer.lr, read.base.training.seed, read.layers) == (0.25, 4, (0, 1))
    assert (read.method.type, read.method.temperature) == ("distilbert", 3.0)  # type: ignore[union-attr]
    assert not (tmp_path / "run").exists()


def test_layers_that_are_not_there(refused: Refused, model: Path, texts: Path, tmp_path: Path) -> None:
    assert "choose 1 to 2" in refused("distil", model, texts, "--layers", 3, "--steps", 1, "--out", tmp_path / "run")
    assert "the teacher's are 0 to 1" in refused(
        "distil", model, texts, "--layers", "0,2", "--steps", 1, "--out", tmp_path / "run"
    )


def test_other_tasks_of_pretraining_are_refused(refused: Refused, model: Path, texts: Path, tmp_path: Path) -> None:
    moving = ("--set", 'masking.schedule={"to": 0.1}')
    said = refused("distil", model, texts, "--layers", 1, "--steps", 1, "--out", tmp_path / "run", *moving)
    assert "leave out pairs, decoder, replaced_tokens, ngrams, vectors, predicts and masking.schedule" in said


def test_a_teacher_that_predicts_nothing(refused: Refused, classifier: Path, texts: Path, tmp_path: Path) -> None:
    said = refused("distil", classifier, texts, "--layers", 1, "--steps", 1, "--out", tmp_path / "run")
    assert "a tokenizer and a masked-language head" in said


# -- on rows ------------------------------------------------------------------------------------


def test_a_classifier(run: Run, classifier: Path, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--label", "label", "--layers", 1, "--held-out", rows, "--epochs", 10, "--batch", 8, "--lr", 3e-3, "--json")
    ran = run("distil", classifier, rows, *options, "--out", out)
    assert ran.code == 0, ran
    said = json.loads(ran.out)
    assert said["steps"] == 30
    assert said["evaluation"]["accuracy"] > 0.9
    student = bothways.load(out / "model", strict=True)
    assert (student.family.name, student.spec.encoder.num_layers, student.spec.labels) == ("bert", 1, ("a", "b"))
    assert student.predict(["the cat ran", "the fish ran"]).argmax(1).tolist() == [0, 1]


def test_before_any_step_the_student_is_layers_of_its_teacher(run: Run, classifier: Path, rows: Path, tmp_path: Path) -> None:
    """The classifier of the same classes comes with them."""
    command = ("distil", classifier, rows, "--label", "label", "--layers", "0,1", "--steps", 1)
    ran = run(*command, "--set", "training.optimizer.lr=1e-30", "--out", tmp_path / "run")
    assert ran.code == 0, ran
    teacher, student = (bothways.load(folder).state_dict() for folder in (classifier, tmp_path / "run" / "model"))
    assert teacher.keys() == student.keys()
    assert all(torch.allclose(tensor, student[name], atol=1e-6) for name, tensor in teacher.items())


def test_hints(run: Run, classifier: Path, rows: Path, tmp_path: Path) -> None:
    options = ("--label", "label", "--layers", 1, "--method", "tinybert", "--steps", 3)
    ran = run("distil", classifier, rows, *options, "--out", tmp_path / "run")
    assert ran.code == 0, ran
    lines = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    line = next(one for one in lines if one["kind"] == "train")
    assert set(line["terms"]) == {"soft", "hard", "attention", "hidden"}
    assert set(line["metrics"]) == {"accuracy"}


def test_a_student_of_other_tokens(run: Run, refused: Refused, classifier: Path, rows: Path, tmp_path: Path) -> None:
    """It learns of the teacher's logits, which are of rows; nothing of the inside."""
    student = save(tmp_path / "student", words=("the cat sat fish swim ran and some other words",))
    command = ("distil", classifier, rows, "--label", "label", "--student", student, "--steps", 2)
    assert run(*command, "--out", tmp_path / "run").code == 0
    assert "must cut text into the same tokens" in refused(*command, "--method", "minilm", "--out", tmp_path / "other")


def test_scores(run: Run, model: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "rows.csv", ("text", "label"), [("the cat", 3.0), ("the dog", -1.0)] * 8)
    options = ("--regression", "--batch", 16, "--lr", 2e-2)
    assert run("finetune", model, table, *options, "--steps", 30, "--out", tmp_path / "teacher").code == 0
    command = ("distil", tmp_path / "teacher" / "model", table, "--label", "label", *options, "--layers", 1)
    ran = run(*command, "--steps", 30, "--out", tmp_path / "run")
    assert ran.code == 0, ran
    cat, dog = bothways.load(tmp_path / "run" / "model").predict(["the cat", "the dog"]).ravel()
    assert cat > 1 > dog


def test_other_classes_are_refused(refused: Refused, classifier: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "others.csv", ("text", "label"), [("the cat", "x"), ("the dog", "y")] * 4)
    said = refused("distil", classifier, table, "--label", "label", "--layers", 1, "--out", tmp_path / "run")
    assert "its 2 classes are a, b; the table's 2 are x, y" in said


def test_a_dry_run_on_rows(run: Run, classifier: Path, rows: Path, tmp_path: Path) -> None:
    options = ("--layers", 2, "--epochs", 2, "--set", "soft.temperature=4", "--set", "batching.samples=4", "--dry-run")
    ran = run("distil", classifier, rows, "--label", "label", *options, "--out", tmp_path / "run")
    assert ran.code == 0, ran
    read = from_json(TaskDistillation, ran.out, "stdout")
    assert (read.base.training.budget.count, read.soft.temperature, read.layers) == (12, 4.0, (0, 1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--steps", 2), "give one of --layers, --student and --recipe"),
        (("--layers", 1), "give one of --hours, --tokens and --steps"),
        (("--layers", "1,x", "--steps", 2), "--layers 1,x: expected a number of layers"),
        (("--layers", 1, "--steps", 2, "--held-out", "rows.csv"), "--held-out goes with --label"),
        (("--layers", 1, "--steps", 2, "--epochs", 0), "--epochs goes with --label"),
        (("--layers", 1, "--steps", 2, "--batch", 8), "--batch goes with --label"),
        (("--layers", 1, "--steps", 2, "--overflow", "cut"), "--overflow goes with --label"),
        (("--layers", 1, "--steps", 2, "--size", "mini"), "--size goes with --recipe"),
        (("--layers", 1, "--steps", 2, "--apart"), "--apart goes with --label"),
        (("--label", "label", "--layers", 1, "--apart"), "--apart goes with --pair"),
        (("--label", "label", "--layers", 1, "--apart", "--pair", "a,b", "--method", "minilm"), "--method minilm compares two"),
        (("--label", "label"), "give --layers or --student"),
        (("--label", "label", "--layers", 1, "--method", "distilbert"), "--method distilbert is for text"),
        (("--label", "label", "--recipe", "bert"), "--recipe and --size go without --label"),
    ],
)
def test_commands_that_are_wrong(
    run: Run, model: Path, rows: Path, tmp_path: Path, options: tuple[object, ...], said: str
) -> None:
    ran = run("distil", model, rows, *map(str, options), "--out", tmp_path / "run")
    assert ran.code == 2, ran
    assert said in " ".join(ran.err.split())
    assert not (tmp_path / "run").exists()
