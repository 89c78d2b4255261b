"""Masked language modelling: the loss of the chosen rows alone (X3), and where they come from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import CONFIGS, SIZE, VOCAB, entering, gap, random_ids, randomise, tiny_encoder

from bothways.data.masking import MODERNBERT, NEOBERT, Masking
from bothways.data.sample import Sample
from bothways.data.vocabulary import Vocabulary
from bothways.layers.heads import MaskedLm, MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm
from bothways.objectives.masked_lm import MaskedInputs, MaskedLanguageModeling
from bothways.ragged import Batch, Capacity

MASK = 4
VOCABULARY = Vocabulary(VOCAB, MASK, frozenset(range(5)))
HEADS = {
    **dict.fromkeys(CONFIGS, MaskedLmHead(transform=Transform(norm=LayerNorm()))),
    "neobert": MaskedLmHead(transform=None, tied=False),
    "longformer": MaskedLmHead(transform=Transform(norm=LayerNorm())),
}


def objective(name: str, masking: Masking = MODERNBERT) -> MaskedLanguageModeling:
    head = MaskedLm(HEADS[name], SIZE, VOCAB, CONFIGS[name].embedding.size)
    randomise(head, seed=1)
    return MaskedLanguageModeling(tiny_encoder(name, layers=2), head, masking, VOCABULARY).eval()


def samples(lengths: list[int]) -> list[Sample]:
    return [Sample(id=100 + i, sequences=(ids.astype(np.int32),)) for i, ids in enumerate(random_ids(lengths))]


OBJECTIVES = {name: objective(name) for name in CONFIGS}
objectives = pytest.mark.parametrize("name", OBJECTIVES)


@objectives
def test_the_sparse_head_is_the_dense_one(name: str) -> None:
    """Loss and every gradient equal those of all logits with the other rows ignored."""
    task = OBJECTIVES[name]
    inputs = task.prepare(samples([30, 7, 12]), 0, 0)
    assert 0 < len(inputs.rows) < inputs.tokens
    logits = task.head(task.encoder(inputs.batch).hidden, task.encoder.embedding.tokens.weight)
    labels = torch.full((inputs.tokens,), -100)
    labels[inputs.rows] = inputs.labels
    dense = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    sparse = task(inputs)["loss"]
    assert gap(sparse, dense) <= 1e-5
    expected = torch.autograd.grad(dense, list(task.parameters()), allow_unused=True, materialize_grads=True)
    found = torch.autograd.grad(sparse, list(task.parameters()), allow_unused=True, materialize_grads=True)
    largest = torch.stack([gradient.abs().max() for gradient in expected]).max()
    for ours, theirs in zip(found, expected, strict=True):
        assert gap(ours, theirs, largest) <= 1e-5


@objectives
def test_the_loss_sees_the_chosen_rows_alone(name: str) -> None:
    """No gradient reaches the logits of another row: its hidden state does not enter."""
    task = OBJECTIVES[name]
    inputs = task.prepare(samples([30, 7]), 0, 0)
    hidden = torch.randn(inputs.tokens, SIZE, requires_grad=True)
    loss, _ = task.head.loss(hidden[inputs.rows], task.encoder.embedding.tokens.weight, inputs.labels)
    (gradient,) = torch.autograd.grad(loss, hidden)
    touched = gradient.abs().sum(dim=1).nonzero().flatten()
    assert touched.tolist() == inputs.rows.tolist()


@objectives
@settings(max_examples=6)
@given(lengths=st.lists(st.integers(0, 14), min_size=1, max_size=5), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_packed_is_alone(name: str, lengths: list[int], seed: int, epoch: int) -> None:
    """Sums and counts of a batch are the sums over its samples alone, which are masked alike; empty slots included."""
    task, given_samples = OBJECTIVES[name], samples(lengths)
    packed = task.prepare(given_samples, seed, epoch)
    alone = [task.prepare([sample], seed, epoch) for sample in given_samples]
    for key in ("loss", "accuracy", "masked", "mask_token"):
        together, apart = task(packed)[key], torch.stack([task(one)[key] for one in alone]).sum()
        assert gap(together, apart) <= 1e-5, key
        assert task.counts(packed)[key] == sum(task.counts(one)[key] for one in alone), key


@objectives
def test_no_gradient_crosses_documents(name: str) -> None:
    task = OBJECTIVES[name]
    inputs = task.prepare(samples([20, 30, 10]), 0, 0)
    own = (inputs.rows >= 20) & (inputs.rows < 50)
    only = replace(inputs, rows=inputs.rows[own], labels=inputs.labels[own])
    with entering(task.encoder) as entered:
        (gradient,) = torch.autograd.grad(task(only)["loss"], entered)
    assert gradient[20:50].any()
    assert not gradient[:20].any()
    assert not gradient[50:].any()


def test_what_prepare_makes() -> None:
    """Rows ascend, labels are the tokens that stood there, everything else is untouched."""
    original = Batch.of([sample.sequences[0] for sample in samples([40, 60])]).ids
    inputs = OBJECTIVES["bert"].prepare(samples([40, 60]), 3, 1)
    assert torch.equal(original[inputs.rows], inputs.labels)
    assert (inputs.rows.diff() > 0).all()
    untouched = torch.ones(100, dtype=torch.bool)
    untouched[inputs.rows] = False
    assert torch.equal(inputs.batch.ids[untouched], original[untouched])
    assert inputs.hidden == (inputs.batch.ids == MASK).sum()
    assert inputs.batch.samples == (100, 101)
    assert inputs.tokens == 100


def test_prepare_is_pure() -> None:
    """The same whoever calls it, in whatever company; other seeds and epochs give other masks. Samples stay as they are."""
    task, given_samples = OBJECTIVES["bert"], samples([40, 60, 20])
    before = [sample.sequences[0].copy() for sample in given_samples]
    first, again = task.prepare(given_samples, 0, 0), task.prepare(given_samples, 0, 0)
    assert torch.equal(first.batch.ids, again.batch.ids)
    assert torch.equal(first.rows, again.rows)
    backwards = task.prepare(given_samples[::-1], 0, 0)
    assert torch.equal(backwards.batch.ids.split([20, 60, 40])[1], first.batch.ids.split([40, 60, 20])[1])
    assert not torch.equal(first.batch.ids, task.prepare(given_samples, 1, 0).batch.ids)
    assert not torch.equal(first.batch.ids, task.prepare(given_samples, 0, 1).batch.ids)
    assert all(np.array_equal(one, sample.sequences[0]) for one, sample in zip(before, given_samples, strict=True))


def test_every_token_hidden_behind_the_mask() -> None:
    """NeoBERT: 100 % of the chosen show the mask token, none of them special."""
    task = objective("neobert", NEOBERT)
    inputs = task.prepare(samples([300]), 0, 0)
    assert (inputs.batch.ids[inputs.rows] == MASK).all()
    assert inputs.hidden == len(inputs.rows)


def test_golden_sums() -> None:
    """A head whose logits do not depend on the text: log of the vocabulary, and the guess is token 0."""
    task = objective("neobert")
    with torch.no_grad():
        for parameter in task.head.parameters():
            parameter.zero_()
    batch = Batch.of([[7, 8, 9, 10]])
    inputs = MaskedInputs(batch, torch.tensor([1, 3]), torch.tensor([0, 6]), hidden=1)
    sums, counts = task(inputs), task.counts(inputs)
    assert sums["loss"].item() == pytest.approx(2 * np.log(VOCAB), rel=1e-6)
    assert {key: sums[key].item() for key in ("accuracy", "masked", "mask_token")} == {
        "accuracy": 1,
        "masked": 2,
        "mask_token": 1,
    }
    assert {key: count.item() for key, count in counts.items()} == {"loss": 2, "accuracy": 2, "masked": 4, "mask_token": 2}
    assert set(task.weights) == {"loss"}
    assert not task.whole_batch


def test_nothing_chosen() -> None:
    task = OBJECTIVES["bert"]
    inputs = MaskedInputs(Batch.of([[7, 8]]), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), hidden=0)
    sums = task(inputs)
    assert sums["loss"].item() == 0
    sums["loss"].backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in task.parameters())
    task.zero_grad()


@objectives
def test_flops_of_the_head(name: str) -> None:
    task = OBJECTIVES[name]
    inputs = task.prepare(samples([30, 7]), 0, 0)
    width = CONFIGS[name].embedding.size or SIZE
    per_row = 2 * VOCAB * width + (2 * SIZE * width if HEADS[name].transform else 0)
    assert task.flops(inputs) == task.encoder.flops(inputs.batch.ragged) + per_row * len(inputs.rows)


@objectives
def test_filler_counts_for_nothing(name: str) -> None:
    """Sums, counts and operations are those without it, and so are all gradients."""
    task = OBJECTIVES[name]
    given = task.prepare(samples([30, 7, 12]), 0, 0)
    filled = given.to_capacity(Capacity(tokens=64, slots=6, longest=30))
    assert (filled.tokens, filled.filler, filled.batch.ragged.tokens) == (49, 15, 64)
    assert task.counts(filled) == task.counts(given)
    assert task.flops(filled) == task.flops(given)
    found = {}
    for inputs in (given, filled):
        sums = task(inputs)
        gradients = torch.autograd.grad(sums["loss"], list(task.parameters()), allow_unused=True, materialize_grads=True)
        found[inputs.filler] = torch.cat([sums["loss"].detach()[None], *(one.flatten() for one in gradients)])
        assert {key: float(value) for key, value in sums.items() if key != "loss"} == {
            "accuracy": float(task(given)["accuracy"]), "masked": float(len(given.labels)), "mask_token": float(given.hidden)
        }  # fmt: skip
    assert gap(found[15], found[0]) <= 1e-5
