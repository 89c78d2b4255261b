"""Fine-tuning on a task under the protocol: seeds, what is kept of them, and the table."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
from rich.console import Console

from bothways.data.tokenizer_training import WordPiece, train_tokenizer
from bothways.errors import InputError
from bothways.evaluation.glue import TASKS, TaskData, read_task
from bothways.families import FAMILIES
from bothways.families.bert import bert
from bothways.families.family import Heads, Spec
from bothways.model.model import Model
from bothways.recipes.glue import Protocol, finetune_on_task, task_table
from bothways.training.optimizer import AdamW

GOOD, BAD = ["a", "fine", "and", "moving", "film"], ["a", "dull", "and", "tedious", "mess"]
PROTOCOL = Protocol(epochs=6, batch=8, optimizer=AdamW(lr=1e-2), seeds=(0, 1, 2))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = train_tokenizer(WordPiece(vocab_size=100), [" ".join(GOOD + BAD)])
    encoder = bert(tokenizer.vocab_size, hidden_size=24, num_layers=1, heads=3, intermediate_size=32, max_length=16)
    family = next(family for family in FAMILIES if family.name == "bert")
    return Model.create(family, Spec(encoder, Heads()), tokenizer).save(tmp_path_factory.mktemp("glue") / "model")


def films(count: int, seed: int) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    return [(" ".join(draw.choices(GOOD if label else BAD, k=4)), str(label)) for label in draw.choices([0, 1], k=count)]


@pytest.fixture
def task(tmp_path: Path) -> TaskData:
    folder = tmp_path / "SST-2"
    folder.mkdir()
    for seed, (name, count) in enumerate((("train", 80), ("dev", 30))):
        text = "".join(f"{text}\t{label}\n" for text, label in films(count, seed))
        (folder / f"{name}.tsv").write_text("sentence\tlabel\n" + text)
    return read_task(TASKS["sst2"], folder)


def quiet() -> Console:
    return Console(file=io.StringIO())


def test_it_learns_and_goes_on(model: Path, task: TaskData, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "sst2.json"
    first = finetune_on_task(
        model, task, Protocol(epochs=6, batch=8, optimizer=AdamW(lr=1e-2), seeds=(0,)), out, said.append, quiet()
    )
    assert first.seeds[0]["accuracy"] > 0.9 > first.constant["accuracy"]
    whole = finetune_on_task(model, task, PROTOCOL, out, said.append, quiet())
    assert [line.partition(":")[2] for line in said] == [" seed 0, run 1 of 1", " seed 1, run 2 of 3", " seed 2, run 3 of 3"]
    assert whole.seeds[0] == first.seeds[0]
    # the same numbers without a file, in one go
    assert [dict(one) for one in finetune_on_task(model, task, PROTOCOL, console=quiet()).seeds] == [
        dict(one) for one in whole.seeds
    ]
    assert set(json.loads(out.read_text())["seeds"]) == {"0", "1", "2"}
    with pytest.raises(InputError, match=r"sst2\.json: made with another protocol"):
        finetune_on_task(model, task, Protocol(epochs=1), out, console=quiet())


def test_the_table(task: TaskData) -> None:
    from bothways.recipes.glue import TaskResult

    one = TaskResult(task, tuple({"accuracy": value} for value in (0.5, 0.9, 0.7)), {"accuracy": 0.4})
    table = task_table([one, one], "mine")
    assert list(table.rows[0]) == [
        "SST-2",
        "accuracy",
        70,
        pytest.approx(70),
        pytest.approx(70 - 49.68, abs=0.01),
        pytest.approx(119.68, abs=0.01),
        40,
    ]
    assert list(table.rows[2])[:3] == ["average", "of tasks", 70]
    assert "3 seeds; evaluated on SST-2 dev 30" in table.note
    alone = task_table([TaskResult(task, ({"accuracy": 0.5},), {"accuracy": 0.4})], "mine")
    assert list(alone.rows[0]) == ["SST-2", "accuracy", 50, None, None, None, 40]


def test_regression(model: Path, tmp_path: Path) -> None:
    """The grade of a pair is how many of its words are good."""
    draw = random.Random(0)
    lines = {"sts-train.csv": 120, "sts-test.csv": 40}
    for name, count in lines.items():
        pairs = [(draw.choices(GOOD, k=good), draw.choices(BAD, k=4 - good)) for good in draw.choices(range(1, 4), k=count)]
        text = "".join(f"g\tf\t2012\t1\t{len(a)}\t{' '.join(a)}\t{' '.join(b)}\n" for a, b in pairs)
        (tmp_path / name).write_text(text)
    data = read_task(TASKS["stsb"], tmp_path)
    protocol = Protocol(epochs=12, batch=8, optimizer=AdamW(lr=1e-2), seeds=(0,))
    found = finetune_on_task(model, data, protocol, console=quiet())
    assert set(found.seeds[0]) == {"pearson", "spearman"}
    assert found.seeds[0]["pearson"] > 0.7


def test_a_learning_rate_that_breaks_is_said(model: Path, task: TaskData) -> None:
    with pytest.raises(InputError, match=r"the loss is|not finite"):
        finetune_on_task(model, task, Protocol(epochs=5, optimizer=AdamW(lr=1e30), seeds=(0,)), console=quiet())
