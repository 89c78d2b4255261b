"""Classes and scores: sums by hand, and the ragged laws."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import CONFIGS, SIZE, entering, gap, random_ids, randomise, rows_of, tiny_encoder
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bothways.data.sample import Sample
from bothways.layers.heads import Classifier, ClassifierHead, ClassifierPooling, Pooling, Transform
from bothways.objectives.classification import LabelledInputs, SequenceClassification
from bothways.ragged import Batch

LABELS = 3


def objective(name: str, pooling: ClassifierPooling, regression: bool = False) -> SequenceClassification:
    head = Classifier(
        ClassifierHead(labels=1 if regression else LABELS, pooling=pooling, transform=Transform(activation="tanh")), SIZE
    )
    randomise(head, seed=1)
    return SequenceClassification(tiny_encoder(name, layers=2), head, regression).eval()


def samples(lengths: list[int], regression: bool = False) -> list[Sample]:
    labels = [0.5 * i - 1 if regression else i % LABELS for i in range(len(lengths))]
    return [
        Sample(id=i, sequences=(ids,), label=label)
        for i, (ids, label) in enumerate(zip(random_ids(lengths), labels, strict=True))
    ]


TASKS = {
    f"{name}-{pooling}-{'regression' if regression else 'classes'}": objective(name, pooling, regression)
    for name in CONFIGS
    for pooling in get_args(Pooling)
    for regression in (False, True)
}
tasks = pytest.mark.parametrize("name", TASKS)


@tasks
@settings(max_examples=4)
@given(lengths=st.lists(st.integers(1, 14), min_size=1, max_size=5), random=st.randoms(use_true_random=False))
def test_packed_is_alone_in_any_order(name: str, lengths: list[int], random: object) -> None:
    task = TASKS[name]
    given_samples = samples(lengths, task.regression)
    shuffled = random.sample(given_samples, len(lengths))  # type: ignore[attr-defined]
    packed, mixed = (task.prepare(some, 0, 0) for some in (given_samples, shuffled))
    alone = [task.prepare([sample], 0, 0) for sample in given_samples]
    sums = task(packed)
    for key, total in sums.items():
        apart = torch.stack([task(one)[key] for one in alone]).sum()
        assert abs(total.item() - apart.item()) <= 1e-5 * max(1.0, abs(apart.item())), key
        assert abs(task(mixed)[key].item() - apart.item()) <= 1e-5 * max(1.0, abs(apart.item())), key
        assert task.counts(packed)[key] == len(lengths)


@tasks
def test_empty_slots_and_other_documents_are_invisible(name: str) -> None:
    """Logits stay as they are beside an empty slot; no gradient reaches another sequence's vectors."""
    task = TASKS[name]
    ids = random_ids([6, 9, 4])
    plain = task.encoder(Batch.of(ids))
    spaced = task.encoder(Batch.of([ids[0], np.zeros(0, dtype=np.int64), ids[1], ids[2]]))
    expected, found = task.head(plain.hidden, plain.ragged), task.head(spaced.hidden, spaced.ragged)
    assert gap(found[[0, 2, 3]], expected) <= 1e-5
    with entering(task.encoder) as entered:
        encoded = task.encoder(Batch.of(ids))
    (gradient,) = torch.autograd.grad(task.head(encoded.hidden, encoded.ragged)[1].sum(), entered)
    inside = gradient[rows_of(encoded.ragged, 1)]
    assert inside.any()
    assert torch.count_nonzero(gradient) == torch.count_nonzero(inside)


def _constant(task: SequenceClassification, logits: list[float]) -> SequenceClassification:
    """The task with a head that says the same of every text."""
    with torch.no_grad():
        task.head.out.weight.zero_()
        task.head.out.bias.copy_(torch.tensor(logits))
    return task


def test_classes_by_hand() -> None:
    """Logits 0, 0, ln 2: probabilities 1/4, 1/4, 1/2."""
    task = _constant(objective("bert", "cls"), [0.0, 0.0, math.log(2)])
    inputs = LabelledInputs(Batch.of([[7], [8, 9], [5]]), torch.tensor([0, 2, 2]))
    sums = task(inputs)
    assert sums["loss"].item() == pytest.approx(math.log(4) + 2 * math.log(2), rel=1e-6)
    assert sums["accuracy"].item() == 2
    assert {key: count.item() for key, count in task.counts(inputs).items()} == {"loss": 3, "accuracy": 3}


def test_scores_by_hand() -> None:
    """Always 2: squared errors 1 and 9 of the scores 1 and -1."""
    task = _constant(objective("bert", "cls", regression=True), [2.0])
    sums = task(LabelledInputs(Batch.of([[7], [8, 9]]), torch.tensor([1.0, -1.0])))
    assert {key: value.item() for key, value in sums.items()} == {"loss": 10.0}


def test_what_prepare_makes() -> None:
    """Shortest first, each with its label, number and types."""
    rows = random_ids([5, 2, 3])
    pairs = [Sample(id=i, sequences=(ids,), types=(np.arange(len(ids)) % 2,), label=i) for i, ids in enumerate(rows)]
    inputs = objective("bert", "cls").prepare(pairs, 0, 0)
    assert inputs.batch.ragged.lengths == (2, 3, 5)
    assert inputs.batch.samples == (1, 2, 0)
    assert inputs.labels.tolist() == [1, 2, 0]
    assert torch.equal(inputs.batch.ids, torch.from_numpy(np.concatenate([rows[1], rows[2], rows[0]])))
    assert inputs.batch.types is not None
    assert inputs.batch.types.tolist() == [0, 1, 0, 1, 0, 0, 1, 0, 1, 0]
    assert objective("neobert", "cls").prepare(pairs, 0, 0).batch.types is None
    assert objective("bert", "cls", regression=True).prepare(samples([3], True), 0, 0).labels.dtype == torch.float32


def test_regression_has_one_output() -> None:
    with pytest.raises(ValueError, match="regression has one output, the head has 3"):
        SequenceClassification(tiny_encoder("bert", layers=2), Classifier(ClassifierHead(labels=3), SIZE), regression=True)


def test_flops_of_the_head() -> None:
    task = objective("bert", "mean")
    inputs = task.prepare(samples([5, 7]), 0, 0)
    assert task.flops(inputs) == task.encoder.flops(inputs.batch.ragged) + 2 * 2 * (SIZE * SIZE + SIZE * LABELS)


def test_flops_of_a_late_head_are_those_of_every_token() -> None:
    task = objective("bert", "late")
    inputs = task.prepare(samples([5, 7]), 0, 0)
    assert task.flops(inputs) == task.encoder.flops(inputs.batch.ragged) + 2 * 12 * (SIZE * SIZE + SIZE * LABELS)


def test_flops_of_global_first_tokens() -> None:
    """As torch counts them, where all tokens are within reach, so that no window is computed as more than it is."""
    task = objective("longformer", "cls")
    head = Classifier(replace(task.head.config, global_first=True), SIZE)
    other = SequenceClassification(task.encoder, head).eval().requires_grad_(False)
    inputs = other.prepare(samples([4, 4, 4]), 0, 0)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        other(inputs)
    assert other.flops(inputs) == counter.get_total_flops()


def test_a_head_that_wants_a_global_first_token_gets_it() -> None:
    task = objective("longformer", "cls")
    head = Classifier(replace(task.head.config, global_first=True), SIZE)
    head.load_state_dict(task.head.state_dict())
    inputs = task.prepare(samples([40, 30]), 0, 0)
    marked = replace(inputs, batch=inputs.batch.with_first_global())
    other = SequenceClassification(task.encoder, head)
    assert torch.equal(other(inputs)["loss"], task(marked)["loss"])
    assert not torch.equal(other(inputs)["loss"], task(inputs)["loss"])
