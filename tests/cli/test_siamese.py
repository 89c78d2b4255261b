"""`distil --apart`: a cross-encoder's pairs in two encodings, on tiny networks (systems.md A9)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.builders import tiny_encoder
from tests.cli.conftest import Refused, Run
from tests.cli.test_training import write_csv

import bothways
from bothways.data.packing import SampleCount
from bothways.data.rows import JsonLines, open_table
from bothways.data.table import TextPair, read_labelled
from bothways.errors import InputError
from bothways.families import FAMILIES
from bothways.families.family import Heads, Spec
from bothways.model.model import Model
from bothways.model.overflow import CutWarning
from bothways.recipes import siamese
from bothways.recipes.distilling_tasks import LOGITS, teacher_logits
from bothways.recipes.runs import Finetuning, SiameseDistillation
from bothways.recipes.siamese import PAIR_HEAD, PairScorer, load_siamese
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Linear, Steps
from bothways.training.settings import TrainingConfig

ANIMALS, VERBS = ("cat", "dog", "fish"), ("sat", "ran", "swim")
TEXTS = [f"the {animal} {verb}" for animal in ANIMALS for verb in VERBS]
PAIRS = [(a, b, "sea" if "fish" in b else "land") for a in TEXTS for b in TEXTS]
NAMES = ("first", "second", "label")
COLUMNS = ("--pair", "first,second", "--label", "label")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Where the second text plays."""
    return write_csv(tmp_path / "rows.csv", NAMES, PAIRS)


@pytest.fixture
def teacher(run: Run, model: Path, rows: Path, tmp_path: Path) -> Path:
    ran = run("finetune", model, rows, *COLUMNS, "--out", tmp_path / "teacher", "--epochs", 8, "--batch", 9, "--lr", 3e-3)
    assert ran.code == 0, ran
    return tmp_path / "teacher" / "model"


def right(scorer: PairScorer) -> float:
    """How many of all pairs are told."""
    vectors = scorer.vectors(TEXTS)
    first, second = ([TEXTS.index(row[side]) for row in PAIRS] for side in (0, 1))
    said = scorer.logits(vectors[first], vectors[second])[:, 0] > 0
    return float(np.mean([(row[2] == "sea") == bool(one) for row, one in zip(PAIRS, said, strict=True)]))


def encoded(student: PairScorer, ask: Callable[[], object]) -> int:
    """How many sequences the encoder reads meanwhile."""
    read: list[int] = []
    hook = student.model.encoder.register_forward_pre_hook(lambda _, given: read.append(len(given[0].ragged.lengths)))
    ask()
    hook.remove()
    return sum(read)


TRAINED = ("--layers", 2, "--apart", "--epochs", 8, "--batch", 9, "--lr", 3e-3)


def test_two_encodings_of_a_cross_encoder(run: Run, teacher: Path, rows: Path, tmp_path: Path) -> None:
    """They tell what the teacher tells; the same command finds the run finished; a text is encoded alone."""
    command = ("distil", teacher, rows, *COLUMNS, *TRAINED, "--held-out", rows, "--out", tmp_path / "run", "--json")
    ran = run(*command)
    assert ran.code == 0, ran
    said = json.loads(ran.out)
    assert set(said["evaluation"]) == {"hard", "accuracy"}
    assert said["evaluation"]["accuracy"] >= 0.95
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert set(next(line for line in lines if line["kind"] == "train")["terms"]) == {"soft", "hard"}
    student = load_siamese(tmp_path / "run")
    assert student.classes == ("land", "sea")
    assert right(student) >= 0.95
    assert bothways.load(tmp_path / "run" / "model").spec.heads == Heads()
    vectors = student.vectors(TEXTS)
    assert torch.allclose(student.vectors(TEXTS[3:4])[0], vectors[3], atol=1e-6)
    assert encoded(student, lambda: student.vectors(TEXTS)) == len(TEXTS)
    assert encoded(student, lambda: student.logits(vectors[:1], vectors.repeat(100, 1))) == 0  # the head alone
    one_to_all = student.logits(vectors[:1], vectors)
    assert torch.equal(one_to_all, student.logits(vectors[:1].expand(len(vectors), -1), vectors))
    head = (tmp_path / "run" / PAIR_HEAD).read_bytes()
    again = run(*command)
    assert again.code == 0, again
    assert json.loads(again.out) == said
    assert (tmp_path / "run" / PAIR_HEAD).read_bytes() == head


@pytest.mark.slow
def test_logits_of_other_rows_teach_nothing(
    run: Run, teacher: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student that has nothing but the teacher's logits learns the task; from the same logits in another order it does not."""
    command = ("distil", teacher, rows, *COLUMNS, *TRAINED, "--set", "soft.soft=1", "--set", "soft.hard=0", "--out")
    assert run(*command, tmp_path / "aligned").code == 0
    aligned, real = right(load_siamese(tmp_path / "aligned")), siamese.soft_labels
    monkeypatch.setattr(siamese, "soft_labels", lambda *said: np.random.default_rng(0).permutation(real(*said)))
    assert run(*command, tmp_path / "permuted").code == 0
    assert aligned >= 0.95
    assert right(load_siamese(tmp_path / "permuted")) <= 0.75


def test_labels_alone(run: Run, model: Path, rows: Path, tmp_path: Path) -> None:
    """Where its logits weigh nothing, the teacher reads nothing: it need not even have any."""
    command = ("distil", model, rows, *COLUMNS, "--layers", 1, "--apart", "--steps", 2, "--set", "soft.soft=0")
    ran = run(*command, "--out", tmp_path / "run")
    assert ran.code == 0, ran


@pytest.mark.slow
def test_three_classes_and_scores(run: Run, model: Path, tmp_path: Path) -> None:
    """As many outputs as classes, and one for a score; all layers of a student that has fewer than four, or those asked for."""
    kinds = write_csv(tmp_path / "kinds.csv", NAMES, [(a, b, str(i % 3)) for i, (a, b, _) in enumerate(PAIRS)])
    scores = write_csv(tmp_path / "scores.csv", NAMES, [(a, b, 2.0 if where == "sea" else -1.0) for a, b, where in PAIRS])
    for table, options, outputs in ((kinds, (), 3), (scores, ("--regression",), 1)):
        name = table.stem
        assert run("finetune", model, table, *COLUMNS, *options, "--steps", 2, "--out", tmp_path / name).code == 0
        learned = tmp_path / name / "model"
        command = ("distil", learned, table, *COLUMNS, *options, "--layers", 2, "--apart", "--steps", 2, "--held-out", table)
        ran = run(*command, "--json", "--out", tmp_path / f"{name}-student")
        assert ran.code == 0, ran
        assert ("accuracy" in json.loads(ran.out)["evaluation"]) == (outputs == 3)
        student = load_siamese(tmp_path / f"{name}-student")
        width = student.model.spec.encoder.hidden_size
        vectors = student.vectors(TEXTS[:3])
        assert vectors.shape == (3, 2 * width)
        assert student.logits(vectors, vectors).shape == (3, outputs)
    ran = run(*command, "--set", "vector_layers=1", "--out", tmp_path / "one")
    assert ran.code == 0, ran
    assert load_siamese(tmp_path / "one").vectors(TEXTS[:1]).shape == (1, width)


def test_what_cannot_be(run: Run, refused: Refused, teacher: Path, rows: Path, tmp_path: Path) -> None:
    command = ("distil", teacher, rows, *COLUMNS, "--layers", 1, "--apart", "--steps", 1)
    assert "vector_layers: 2 are more than the student's 1" in refused(
        *command, "--set", "vector_layers=2", "--out", tmp_path / "a"
    )
    said = refused(*command, "--set", "soft.compare=kl", "--out", tmp_path / "a")
    assert "log odds are one number; compare them as squared" in said
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / PAIR_HEAD).touch()
    assert f"{PAIR_HEAD}: exists, and no run of this folder made it" in refused(*command, "--out", tmp_path / "theirs")
    unseen = write_csv(tmp_path / "unseen.csv", NAMES, [("the cat", "the dog", "air")])
    assert "label 'air' was not seen in training" in refused(*command, "--held-out", unseen, "--out", tmp_path / "a")
    others = write_csv(tmp_path / "others.csv", NAMES, [("the cat", "the dog", "x"), ("the dog", "the cat", "y")])
    ran = run("distil", teacher, others, *COLUMNS, "--layers", 1, "--apart", "--steps", 1, "--out", tmp_path / "b")
    assert ran.code == 1, ran
    assert "its 2 classes are land, sea; the table's 2 are x, y" in ran.err
    with pytest.raises(InputError, match="no finished run of `bothways distil --apart`"):
        load_siamese(tmp_path / "c")
    assert run(*command, "--out", tmp_path / "run").code == 0
    student, long = load_siamese(tmp_path / "run"), " ".join(["the cat sat"] * 10)
    with pytest.raises(InputError, match="1 of 2 texts have more than 14 tokens"):
        student.vectors(["the cat", long])
    with pytest.warns(CutWarning, match="1 of 2 texts were cut"):
        assert len(student.vectors(["the cat", long], overflow="cut")) == 2
    with pytest.raises(InputError, match="vectors takes a list of texts"):
        student.vectors("the cat")
    none = student.vectors([])
    assert none.shape == (0, student.vectors(["the cat"]).shape[1])
    with pytest.raises(InputError, match="2 first texts and 3 second ones"):
        student.logits(none.new_zeros(2, none.shape[1]), none.new_zeros(3, none.shape[1]))


def test_what_the_teacher_cannot_read_whole(run: Run, teacher: Path, tmp_path: Path) -> None:
    """Two texts that fit alone and not together are cut for the teacher, which is said, and for no other."""
    half = " ".join(["the cat sat"] * 3)
    table = write_csv(tmp_path / "long.csv", NAMES, [(half, half, "sea"), ("the cat", "the dog", "land")])
    command = ("distil", teacher, table, *COLUMNS, "--layers", 1, "--apart", "--steps", 1, "--out")
    ran = run(*command, tmp_path / "a")
    assert ran.code == 1, ran
    assert f"the teacher {teacher}: {table}:2: 21 tokens, over max_length=16" in ran.err
    ran = run(*command, tmp_path / "b", "--overflow", "cut")
    assert ran.code == 0, ran
    assert [line for line in ran.err.splitlines() if "were cut" in line] == [f"{teacher}: 1 of 2 rows were cut to 16 tokens"]


@pytest.mark.slow
def test_it_goes_on_where_it_stood(run: Run, teacher: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a checkpoint in its middle it comes to the same encoder and head, bit for bit; the teacher is not asked again."""
    out, checkpoints = tmp_path / "run", ("--set", "training.checkpoint_every=2", "--set", "training.keep=3")
    command = ("distil", teacher, rows, *COLUMNS, "--layers", 1, "--apart", "--steps", 4, "--out", out, *checkpoints)
    assert run(*command).code == 0
    files = (out / "model" / "model.safetensors", out / PAIR_HEAD)
    whole = [file.read_bytes() for file in files]
    shutil.rmtree(out / "checkpoints" / "step-0000004")
    shutil.rmtree(out / "model")
    monkeypatch.setattr("bothways.recipes.distilling_tasks.teacher_logits", None)
    ran = run(*command)
    assert ran.code == 0, ran
    assert [file.read_bytes() for file in files] == whole


def test_logits_of_another_run_are_not_taken(run: Run, teacher: Path, rows: Path, tmp_path: Path) -> None:
    """A run that never began leaves its teacher's logits: the next one reads anew. Of one that began, other rows are refused."""
    out, other = tmp_path / "run", write_csv(tmp_path / "other.csv", NAMES, PAIRS[::-1])
    command = ("--apart", "--layers", 1, "--steps", 1, "--out", out)
    ran = run("distil", teacher, rows, *COLUMNS, *command, "--set", "training.compile=true")
    assert ran.code == 1, ran
    first = load_file(out / LOGITS)["logits"]
    assert run("distil", teacher, other, *COLUMNS, *command).code == 0
    assert torch.equal(load_file(out / LOGITS)["logits"], first.flip(0))
    write_csv(other, NAMES, PAIRS)
    ran = run("distil", teacher, other, *COLUMNS, *command)
    assert ran.code == 1, ran
    assert "is of another teacher, or of other rows" in ran.err


def test_logits_are_of_the_classes_by_name(teacher: Path, rows: Path) -> None:
    """Whatever order the teacher has them in."""
    table, model = read_labelled(open_table(rows), TextPair()), bothways.load(str(teacher))
    there, back = (teacher_logits(model, table, names, regression=False) for names in (("land", "sea"), ("sea", "land")))
    assert np.array_equal(there, back[:, ::-1])
    assert not np.array_equal(there, back)


def test_four_layers_as_published() -> None:
    base = Finetuning(
        model="x", table=JsonLines(paths=("x",)), columns=TextPair(), batching=SampleCount(samples=1),
        training=TrainingConfig(optimizer=AdamW(lr=1.0), schedule=Linear(), budget=Steps(count=1)),
    )  # fmt: skip
    deep = Model.create(next(one for one in FAMILIES if one.name == "bert"), Spec(tiny_encoder("bert", layers=6).config, Heads()))
    head = siamese._head(SiameseDistillation(base=base, teacher="x"), deep, 3)
    assert (head.layers, head.hidden, head.labels) == (4, 512, 3)
