"""InfoNCE: by hand, in any order of the batch, with hard negatives."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import CONFIGS, entering, random_ids, rows_of, tiny_encoder
from torch import Tensor

from bothways.data.sample import Sample
from bothways.errors import InputError
from bothways.layers.heads import Pooling, pool
from bothways.objectives.contrastive import Contrastive, ContrastiveInputs, InfoNce
from bothways.ragged import Batch, Ragged

TASKS = {
    f"{name}-{pooling}": Contrastive(tiny_encoder(name, layers=2), pooling, InfoNce(temperature=0.5, symmetric=name == "bert"))
    for name in CONFIGS
    for pooling in get_args(Pooling)
}
tasks = pytest.mark.parametrize("name", TASKS)


def samples(lengths: list[tuple[int, ...]]) -> list[Sample]:
    flat = iter(random_ids([length for sample in lengths for length in sample]))
    return [Sample(id=i, sequences=tuple(next(flat) for _ in sample)) for i, sample in enumerate(lengths)]


def expected(task: Contrastive, given_samples: list[Sample]) -> tuple[float, int]:
    """The loss and the hits, from vectors of texts encoded one at a time."""
    groups: list[list[Tensor]] = [[], [], []]
    for sample in given_samples:
        for place, ids in enumerate(sample.sequences):
            encoded = task.encoder(Batch.of([ids]))
            vector = pool(task.pooling, encoded.hidden, encoded.ragged)[0].double()
            groups[place].append(vector / vector.norm())
    texts, candidates = torch.stack(groups[0]), torch.stack(groups[1] + groups[2])
    scores = texts @ candidates.T / task.loss.temperature
    forward = sum(scores[i].logsumexp(0) - scores[i, i] for i in range(len(texts)))
    backward = sum(scores[:, i].logsumexp(0) - scores[i, i] for i in range(len(texts)))
    loss = (forward + backward) / 2 if task.loss.symmetric else forward
    return torch.as_tensor(loss).item(), int((scores.argmax(dim=1) == torch.arange(len(texts))).sum())


sizes = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4)


@tasks
@settings(max_examples=4)
@given(lengths=sizes, random=st.randoms(use_true_random=False))
def test_packed_is_alone_in_any_order(name: str, lengths: list[tuple[int, ...]], random: object) -> None:
    task, given_samples = TASKS[name], samples(lengths)
    loss, hits = expected(task, given_samples)
    for some in (given_samples, random.sample(given_samples, len(lengths))):  # type: ignore[attr-defined]
        sums = task(task.prepare(some, 0, 0))
        assert sums["loss"].item() == pytest.approx(loss, rel=1e-4, abs=1e-4)
        assert sums["accuracy"].item() == hits


@tasks
def test_empty_slots_are_invisible(name: str) -> None:
    """A slot that holds nobody's text changes nothing, wherever it stands."""
    task = TASKS[name]
    inputs = task.prepare(samples([(3, 5, 2), (4, 4, 6)]), 0, 0)
    lengths = inputs.batch.ragged.lengths
    spaced = replace(
        inputs,
        batch=Batch(inputs.batch.ids, Ragged.of([0, *lengths[:2], 0, *lengths[2:], 0])),
        place=inputs.place + 1 + (inputs.place >= 2).long(),
    )
    assert task(spaced)["loss"].item() == pytest.approx(task(inputs)["loss"].item(), rel=1e-5)


@tasks
def test_a_vector_takes_no_gradient_from_another_text(name: str) -> None:
    task = TASKS[name]
    inputs = task.prepare(samples([(3, 5), (4, 4)]), 0, 0)
    with entering(task.encoder) as entered:
        encoded = task.encoder(inputs.batch)
    own = int(inputs.place[2])
    (gradient,) = torch.autograd.grad(pool(task.pooling, encoded.hidden, encoded.ragged)[own].sum(), entered)
    assert torch.count_nonzero(gradient) == torch.count_nonzero(gradient[rows_of(encoded.ragged, own)]) > 0


class _Fixed(Contrastive):
    """The loss over vectors given by hand."""

    def __init__(self, vectors: list[list[float]], loss: InfoNce) -> None:
        super().__init__(tiny_encoder("bert", layers=2), "mean", loss)
        self.encoder.forward = lambda batch: type("E", (), {"hidden": torch.tensor(vectors), "ragged": batch.ragged})()  # type: ignore[method-assign, assignment]


def _inputs(count: int, pairs: int) -> ContrastiveInputs:
    return ContrastiveInputs(Batch.of([[7]] * count), torch.arange(count), pairs)


def test_infonce_by_hand() -> None:
    """Two texts and partners at right angles, temperature 1: cosines 1 and 0, a loss of ln(1 + 1/e) each."""
    vectors = [[2.0, 0.0], [0.0, 3.0], [1.0, 0.0], [0.0, 5.0]]
    sums = _Fixed(vectors, InfoNce(temperature=1.0))(_inputs(4, 2))
    assert sums["loss"].item() == pytest.approx(2 * math.log(1 + math.exp(-1)), rel=1e-6)
    assert sums["accuracy"].item() == 2


def test_hard_negatives_and_symmetry_by_hand() -> None:
    """A negative equal to the first text stands against both texts; partners looking back do not see it."""
    vectors = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    forward = math.log(2 + math.exp(-1)) + math.log(1 + 2 * math.exp(-1))
    backward = 2 * math.log(1 + math.exp(-1))
    assert _Fixed(vectors, InfoNce(temperature=1.0))(_inputs(5, 2))["loss"].item() == pytest.approx(forward, rel=1e-6)
    both = _Fixed(vectors, InfoNce(temperature=1.0, symmetric=True))(_inputs(5, 2))["loss"].item()
    assert both == pytest.approx((forward + backward) / 2, rel=1e-6)


def test_the_temperature_divides() -> None:
    vectors = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    loss = _Fixed(vectors, InfoNce(temperature=0.5))(_inputs(4, 2))["loss"].item()
    assert loss == pytest.approx(2 * math.log1p(math.exp(-2)), rel=1e-6)


def test_what_prepare_makes() -> None:
    """By length, with the place of each: texts, partners, then the negatives of those that have any."""
    given_samples = samples([(4, 2), (1, 3, 5)])
    inputs = TASKS["bert-mean"].prepare(given_samples, 0, 0)
    assert inputs.batch.ragged.lengths == (1, 2, 3, 4, 5)
    assert inputs.pairs == 2
    order = [
        given_samples[0].sequences[0],
        given_samples[1].sequences[0],
        given_samples[0].sequences[1],
        *given_samples[1].sequences[1:],
    ]
    parts = inputs.batch.ids.split(list(inputs.batch.ragged.lengths))
    assert all(np.array_equal(parts[place], ids) for place, ids in zip(inputs.place.tolist(), order, strict=True))
    assert inputs.tokens == 15
    assert TASKS["bert-mean"].whole_batch


def test_a_text_needs_a_partner() -> None:
    """Else the next sample's partner would be taken for its own."""
    with pytest.raises(InputError, match="partner"):
        TASKS["bert-mean"].prepare(samples([(4,), (1, 3)]), 0, 0)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        InfoNce(temperature=temperature)
