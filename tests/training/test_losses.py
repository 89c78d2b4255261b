"""Which runs' losses are of different things, by the records that runs really have."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from bothways.config import override, to_json
from bothways.data.packing import SampleCount
from bothways.data.rows import Csv
from bothways.data.source import TextFiles
from bothways.data.table import Contrast, SingleText
from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.objectives.distillation.methods import DistilBert, MiniLm
from bothways.recipes.published import RECIPES
from bothways.recipes.runs import Distillation, Embedding, Finetuning, Pretraining, Stage, Staged, TaskDistillation
from bothways.training.losses import OF_LOSS, unlike
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Linear, Steps
from bothways.training.settings import TrainingConfig

SOURCE, BUDGET = TextFiles(paths=("texts",)), Steps(count=2)
TRAINING = TrainingConfig(optimizer=AdamW(lr=1e-3), schedule=Linear(), budget=BUDGET)
LABELLED = Finetuning(
    model="m", table=Csv(paths=("t",)), columns=SingleText(text="text", label="stars"), batching=SampleCount(samples=2),
    training=TRAINING,
)  # fmt: skip
EMBEDDING = Embedding(
    model="m", table=Csv(paths=("t",)), columns=Contrast(), batching=SampleCount(samples=2),
    training=TRAINING,
)  # fmt: skip


def published(name: str) -> Pretraining | Staged:
    return RECIPES[name](SOURCE, BUDGET, "toy")


def plain(name: str) -> Pretraining:
    run = published(name)
    return run.base if isinstance(run, Staged) else run


def found(*given: Any) -> list[str]:
    return unlike([json.loads(to_json(run)) for run in given], [{"loss": None}] * len(given))


STUDENT = Distillation(base=plain("roberta"), teacher="t", method=DistilBert())
TAUGHT = TaskDistillation(base=LABELLED, teacher="t")


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ("roberta", "modernbert_short", []),
        ("roberta", "neobert", []),  # of stages, all of them of masked tokens
        ("bert_next_sentence", "roberta", ["pairs"]),
        ("bert_next_sentence", "albert", ["pairs"]),
        ("roberta", "electra", ["replaced_tokens"]),
        ("electra", "deberta_v3", []),
        ("electra", "ernie_gram", ["ngrams"]),
    ],
)
def test_published_runs(one: str, other: str, names: list[str]) -> None:
    assert found(published(one), published(other)) == names


def test_what_is_counted_otherwise_is_another_loss() -> None:
    run = plain("electra")
    assert found(run, override(run, ["replaced_tokens.weight=10"])) == ["replaced_tokens"]
    assert found(run, override(run, ["replaced_tokens.temperature=2", "training.seed=4", "masking.rate=0.3"])) == []


def test_the_last_stage_says_what_a_run_of_stages_learns() -> None:
    run = plain("roberta")
    stages = Staged(base=replace(run, predicts="next"), stages=(Stage(name="a"), Stage(name="b", predicts="masked")))
    assert found(run, stages) == []
    assert found(run, replace(stages, stages=stages.stages[:1])) == ["predicts"]


def test_students_and_labelled_rows() -> None:
    assert found(plain("roberta"), STUDENT) == ["method"]
    assert found(STUDENT, replace(STUDENT, method=MiniLm())) == ["method"]
    assert found(LABELLED, replace(LABELLED, columns=SingleText(text="text", label="kind"))) == ["columns"]
    assert found(LABELLED, replace(LABELLED, model="other", regression=False)) == []
    assert found(LABELLED, TAUGHT) == ["soft"]
    assert "columns" in found(plain("roberta"), LABELLED)
    assert found(EMBEDDING, override(EMBEDDING, ["loss.temperature=0.5"])) == ["loss"]


def test_what_is_added_up_where_no_setting_tells() -> None:
    """An older record has no weights; the names of the terms are in every log."""

    def added(*terms: dict[str, float | None]) -> list[str]:
        return unlike([{"seed": number} for number in range(len(terms))], terms)

    told = ["what the loss adds up"]
    assert added({"x": 1.0, "y": 2.0}, {"y": 2.0, "x": 1.0}, {"x": None, "y": None}) == []
    assert added({"x": 1.0}, {"x": 1.0, "y": 2.0}) == told
    assert added({"x": 1.0, "y": 2.0}, {"x": 1.0, "y": 3.0}) == told


def test_the_settings_are_there() -> None:
    """A field with another name would be found in no run."""
    kinds = (Pretraining, Distillation, TaskDistillation, Finetuning, Embedding)
    known = {field.name for kind in kinds for field in fields(kind)}
    assert {path.split(".")[0] for path in OF_LOSS} <= known
    deeper = {path: path.split(".") for path in OF_LOSS if "." in path}
    decoded = replace(plain("roberta"), decoder=MaskDecoderHead())
    values = {"pairs": plain("albert"), "replaced_tokens": plain("electra"), "columns": LABELLED, "decoder": decoded}
    values["vectors"] = plain("retromae")
    for path, (first, *rest) in deeper.items():
        tree = json.loads(to_json(values[first]))[first]
        for name in rest:
            assert name in tree, path
            tree = tree[name]
