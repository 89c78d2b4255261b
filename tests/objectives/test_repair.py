"""Two pointers: the published formula, restated over padded rows; figures by hand; the ragged laws."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import SIZE, entering, gap, random_ids, randomise, rows_of, tiny_encoder
from torch import Tensor

from bothways.data.code.pointers import CANDIDATE, ERROR, TARGET
from bothways.data.sample import Sample
from bothways.errors import InputError
from bothways.layers.pointer import Pointer, PointerHead
from bothways.objectives.repair import LocalizationAndRepair, RepairInputs

Masking = Literal["excluded", "zeroed"]
MASKINGS: tuple[Masking, ...] = ("excluded", "zeroed")
maskings = pytest.mark.parametrize("masking", MASKINGS)


def objective(masking: Masking, name: str = "bert") -> LocalizationAndRepair:
    head = Pointer(PointerHead(masking=masking), SIZE)
    randomise(head, seed=1)
    return LocalizationAndRepair(tiny_encoder(name, layers=2), head).eval()


def samples(lengths: list[int], seed: int = 0) -> list[Sample]:
    """Every other one has a bug; about half of the tokens are candidates, but never the first."""
    draw, made = np.random.default_rng(seed), []
    for number, ids in enumerate(random_ids(lengths, seed)):
        marks = np.where(draw.random(len(ids)) < 0.5, CANDIDATE, 0).astype(np.uint8)
        marks[0] = 0
        error, *targets = draw.permutation(np.arange(1, len(ids)))[:3]
        marks[[error, *targets]] |= CANDIDATE
        if number % 2:
            marks[error] |= ERROR
            marks[targets] |= TARGET
        made.append(Sample(id=number, sequences=(ids,), marks=marks))
    return made


@torch.no_grad()
def published(task: LocalizationAndRepair, one: Sample, masking: Masking) -> dict[str, float]:
    """finetune_varmisuse_pointer_lib.py of google-research, restated for one sequence, in float64."""
    inputs = task.prepare([one], 0, 0)
    hidden = task.encoder(inputs.batch).hidden.double()
    head = task.head.double()
    pooled = torch.tanh(hidden[:1] @ head.pooler.dense.weight.T + head.pooler.dense.bias)
    m = torch.tanh(hidden @ head.tokens.weight.T + pooled @ head.sequence.weight.T)
    logits = m @ head.out.weight.T
    task.head.float()
    assert one.marks is not None
    marks = torch.from_numpy(one.marks.astype(np.int64))
    candidates = ((marks & CANDIDATE) > 0).double()
    if masking == "zeroed":
        odds = torch.softmax(logits * candidates[:, None], dim=0)
    else:
        places = candidates.clone()
        places[0] = 1
        allowed = torch.stack([places, candidates], dim=1)
        odds = torch.softmax(torch.where(allowed > 0, logits, -math.inf), dim=0)
    error, target = ((marks & ERROR) > 0).double(), ((marks & TARGET) > 0).double()
    if not error.any():
        error[0] = 1
    clipped = odds.clamp(1e-10, 1.0).log()
    location, repair = odds.argmax(dim=0).tolist()
    buggy = not bool(error[0])
    return {
        "location_loss": -float((error * clipped[:, 0]).sum()),
        "repair_loss": -float((target * clipped[:, 1]).sum()),
        "accuracy": float((location != 0) == buggy),
        "true_positive": float(not buggy and location == 0),
        "localization": float(buggy and error[location]),
        "repair": float(buggy and target[repair]),
        "joint": float(buggy and error[location] and target[repair]),
    }


@maskings
def test_the_published_formula(masking: Masking) -> None:
    """Reference check 12.(4): each way of masking against its definition, and packed is alone."""
    task = objective(masking)
    given_samples = samples([9, 4, 12, 7, 5, 30, 6, 8])
    sums = task(task.prepare(given_samples, 0, 0))
    expected = [published(task, one, masking) for one in given_samples]
    for name, total in sums.items():
        apart = sum(one[name] for one in expected)
        assert total.item() == pytest.approx(apart, rel=1e-5), name
    assert sums["accuracy"] > 0


def test_the_two_ways_of_masking_differ() -> None:
    """Published (`zeroed`), every token has some probability; excluded, only candidates have, and the first token as a place.

    Excluded is what is done unless asked otherwise: reference check D3 wants pointers at valid candidates alone.
    """
    assert PointerHead().masking == "excluded"
    inputs = objective("excluded").prepare(samples([9, 14]), 0, 0)
    odds = {}
    for masking in MASKINGS:
        task = objective(masking)
        logits = task.head(task.encoder(inputs.batch).hidden, inputs.batch.ragged, inputs.candidates)
        odds[masking] = torch.cat([part.softmax(dim=0) for part in logits.split([9, 14])])
    other = ~inputs.candidates
    assert (odds["zeroed"][other] > 0).all()
    assert (odds["excluded"][other][:, 1] == 0).all()
    first = inputs.batch.ragged.positions == 0
    assert (odds["excluded"][other & ~first] == 0).all()
    assert (odds["excluded"][first][:, 0] > 0).all()


@maskings
def test_no_bug_is_the_first_token_and_nothing_to_repair(masking: Masking) -> None:
    """Reference check 12.(2)."""
    task = objective(masking)
    clean = [one for one in samples([6, 9, 8, 7]) if one.id % 2 == 0]
    inputs = task.prepare(clean, 0, 0)
    assert torch.equal(inputs.errors, inputs.batch.ragged.starts[:-1].long())
    sums, counts = task(inputs), task.counts(inputs)
    assert sums["repair_loss"] == 0
    assert (counts["localization"], counts["repair"], counts["joint"], counts["true_positive"]) == (0, 0, 0, 2)


def test_figures_by_hand() -> None:
    """Repair is counted over functions with a bug alone (the pitfall), and true positives over those without one."""
    task = objective("excluded")
    marks = [[0, CANDIDATE, CANDIDATE | ERROR, CANDIDATE | TARGET], [0, CANDIDATE, CANDIDATE, 0]]
    rows = [
        Sample(i, (ids,), marks=np.array(m, np.uint8)) for i, (ids, m) in enumerate(zip(random_ids([4, 4]), marks, strict=True))
    ]
    inputs = task.prepare(rows, 0, 0)

    def said(location: list[int], repair: list[int]) -> dict[str, float]:
        logits = torch.zeros(8, 2)
        logits[location, 0], logits[repair, 1] = 9.0, 9.0
        task.head.forward = lambda *_: logits  # type: ignore[method-assign]
        return {name: float(total) for name, total in task(inputs).items() if not name.endswith("loss")}

    right = {"accuracy": 2, "true_positive": 1, "localization": 1, "repair": 1, "joint": 1}
    assert said([2, 4], [3, 5]) == right
    assert said([1, 4], [3, 5]) == right | {"localization": 0, "joint": 0}
    assert said([2, 5], [1, 6]) == right | {"accuracy": 1, "true_positive": 0, "repair": 0, "joint": 0}
    assert said([0, 4], [3, 5]) == right | {"accuracy": 1, "localization": 0, "joint": 0}
    assert {name: int(count) for name, count in task.counts(inputs).items()} == {
        "location_loss": 2, "repair_loss": 2, "accuracy": 2, "true_positive": 1, "localization": 1, "repair": 1, "joint": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["bert", "modernbert", "deberta"])
@maskings
@settings(max_examples=5)
@given(lengths=st.lists(st.integers(4, 14), min_size=1, max_size=5), random=st.randoms(use_true_random=False))
def test_packed_is_alone_in_any_order(name: str, masking: Masking, lengths: list[int], random: object) -> None:
    task = TASKS[name, masking]
    given_samples = samples(lengths)
    shuffled = random.sample(given_samples, len(lengths))  # type: ignore[attr-defined]
    packed, mixed = (task(task.prepare(some, 0, 0)) for some in (given_samples, shuffled))
    alone = [task(task.prepare([one], 0, 0)) for one in given_samples]
    for key, total in packed.items():
        apart = torch.stack([one[key] for one in alone]).sum()
        for found in (total, mixed[key]):
            assert abs(found.item() - apart.item()) <= 1e-5 * max(1.0, abs(apart.item())), key


TASKS = {(name, masking): objective(masking, name) for name in ("bert", "modernbert", "deberta") for masking in MASKINGS}


def test_no_gradient_reaches_another_function() -> None:
    task = objective("zeroed")
    inputs = task.prepare(samples([6, 9]), 0, 0)
    with entering(task.encoder) as entered:
        encoded = task.encoder(inputs.batch)
    logits = task.head(encoded.hidden, encoded.ragged, inputs.candidates)
    (gradient,) = torch.autograd.grad(logits[rows_of(encoded.ragged, 1)].sum(), entered)
    inside = gradient[rows_of(encoded.ragged, 1)]
    assert inside.any()
    assert torch.count_nonzero(gradient) == torch.count_nonzero(inside)


def test_what_is_no_candidate_decides_nothing() -> None:
    """X3: a change of its logits leaves the losses as they are."""
    task = objective("excluded")
    inputs: RepairInputs = task.prepare(samples([9, 12]), 0, 0)
    hidden = task.encoder(inputs.batch).hidden
    spared = ~inputs.candidates & (inputs.batch.ragged.positions > 0)

    def losses(vectors: Tensor) -> Tensor:
        task.encoder.forward = lambda batch: replace(encoded, hidden=vectors)  # type: ignore[method-assign]
        sums = task(inputs)
        return torch.stack([sums["location_loss"], sums["repair_loss"]])

    encoded = task.encoder(inputs.batch)
    changed = torch.where(spared.unsqueeze(1), hidden + 1, hidden)
    assert gap(losses(changed), losses(hidden)) == 0
    assert gap(losses(hidden + spared.logical_not().unsqueeze(1)), losses(hidden)) > 1e-3


def test_samples_without_marks_are_refused() -> None:
    with pytest.raises(InputError, match="sample 0 has no marks"):
        objective("excluded").prepare([Sample(0, (np.arange(5),))], 0, 0)
