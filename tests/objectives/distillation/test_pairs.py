"""Distilled sentence embedding: vectors of single texts, a head for pairs, a cross-encoder's logits (systems.md A9)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import SIZE, gap, random_batch, random_ids, randomise, tiny_encoder

from bothways.data.sample import Sample
from bothways.errors import InputError
from bothways.objectives.distillation.labels import SoftLabels
from bothways.objectives.distillation.pairs import HALF_AND_HALF, PairClassifier, PairDistillation, PairHead
from bothways.ragged import Batch

ROWS = 6
LOGITS = np.random.default_rng(3).normal(size=(ROWS, 3)).astype(np.float32)


def task(labels: int = 3, logits: np.ndarray = LOGITS, soft: SoftLabels = HALF_AND_HALF, **options: Any) -> PairDistillation:
    encoder = tiny_encoder("bert", layers=5)
    head = PairClassifier(PairHead(labels=labels, hidden=16), encoder)
    randomise(head, seed=1)
    return PairDistillation(encoder, head, logits, soft, **options).eval()


def pairs(lengths: list[tuple[int, int]], labels: int = 3) -> list[Sample]:
    drawn = random_ids([length for pair in lengths for length in pair])
    return [Sample(i, (drawn[2 * i], drawn[2 * i + 1]), label=i % labels) for i in range(len(lengths))]


LENGTHS = [(5, 3), (9, 9), (2, 14), (7, 4), (4, 4), (3, 8)]


def test_the_released_sizes() -> None:
    """Four layers side by side, their four combinations, and a hidden layer of 512."""
    head = PairClassifier(PairHead(labels=1), tiny_encoder("bert", layers=5))
    assert tuple(head.hidden.weight.shape) == (512, 4 * 4 * SIZE)
    assert (HALF_AND_HALF.soft, HALF_AND_HALF.hard, HALF_AND_HALF.compare) == (0.5, 0.5, "squared")


def test_a_vector_by_hand() -> None:
    """The last four layers, the mean over all tokens but the first."""
    one = task()
    encoded = one.encoder(random_batch([6]), keep=True)
    expected = torch.cat([layer[1:].mean(0) for layer in encoded.layers[-4:]])
    assert gap(one.head.vectors(encoded)[0], expected) <= 1e-5


def test_the_last_layer_is_what_the_encoder_gives() -> None:
    """Behind its last norm, where layers have theirs in front; so that the norm learns, too."""
    encoder = tiny_encoder("modernbert", layers=5)
    head = PairClassifier(PairHead(labels=1, layers=2, hidden=16), encoder)
    encoded = encoder(random_batch([6]), keep=True)
    expected = torch.cat((encoded.layers[-2][1:].mean(0), encoded.hidden[1:].mean(0)))
    assert gap(head.vectors(encoded)[0], expected) <= 1e-5
    head.vectors(encoded).sum().backward()
    assert all(one.grad is not None for one in encoder.final_norm.parameters())


def test_a_vector_knows_no_partner() -> None:
    """It is the same in any batch; a text of its first token alone has zeros."""
    one, ids = task(), random_ids([6, 30, 1, 0, 11])
    together = one.head.vectors(one.encoder(random_batch([6, 30, 1, 0, 11]), keep=True))
    for vector, row in zip(together, ids, strict=True):
        alone = one.head.vectors(one.encoder(Batch.of([row]), keep=True))[0]
        assert gap(vector, alone) <= 1e-5
    assert not together[2:4].any()
    assert together.isfinite().all()


def test_candidates_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query with 10,000 candidates: the encoder is not called for a pair, only the head."""
    one = task()
    vectors = one.head.vectors(one.encoder(random_batch([5, 8, 6]), keep=True))
    monkeypatch.setattr(one.encoder, "forward", lambda *_: pytest.fail("the encoder was asked again"))
    candidates = vectors[1:].repeat(5000, 1)
    logits = one.head(vectors[:1].expand_as(candidates), candidates)
    assert logits.shape == (10_000, 3)
    assert gap(logits[:2], one.head(vectors[:1].expand(2, -1), vectors[1:])) <= 1e-5


def test_the_order_of_a_pair_matters() -> None:
    one = task()
    u, v = one.head.vectors(one.encoder(random_batch([5, 8]), keep=True)).split(1)
    assert gap(one.head(u, v), one.head(v, u)) > 0.01


@settings(max_examples=6)
@given(count=st.integers(1, ROWS), random=st.randoms(use_true_random=False))
def test_packed_is_alone_in_any_order(count: int, random: object) -> None:
    one, rows = task(), pairs(LENGTHS[:count])
    mixed = one(one.prepare(random.sample(rows, count), 0, 0))  # type: ignore[attr-defined]
    for key, total in mixed.items():
        apart = sum(one(one.prepare([row], 0, 0))[key].item() for row in rows)
        assert total.item() == pytest.approx(apart, rel=2e-5, abs=2e-5), key
    assert all(value == count for value in one.counts(one.prepare(rows, 0, 0)).values())


def test_losses_by_hand() -> None:
    one = task()
    inputs = one.prepare(pairs(LENGTHS), 0, 0)
    u, v = one.head.vectors(one.encoder(inputs.batch, keep=True))[inputs.place].chunk(2)
    logits, labels = one.head(u, v), torch.tensor([0, 1, 2, 0, 1, 2])
    sums = one(inputs)
    assert gap(sums["soft"], ((logits - torch.from_numpy(LOGITS)) ** 2).sum()) <= 1e-5
    assert gap(sums["hard"], F.cross_entropy(logits, labels, reduction="sum")) <= 1e-5
    assert sums["accuracy"] == (logits.argmax(1) == labels).sum()
    crossed = task(logits=LOGITS[::-1].copy())
    assert gap(crossed(crossed.prepare(pairs(LENGTHS), 0, 0))["soft"], sums["soft"]) > 0.01


def test_two_classes_are_one_number() -> None:
    """The teacher's second logit less its first, and the labels' cross-entropy of its odds."""
    one = task(1, LOGITS[:, :2])
    inputs = one.prepare(pairs(LENGTHS, labels=2), 0, 0)
    assert inputs.logits.flatten().tolist() == pytest.approx((LOGITS[:, 1] - LOGITS[:, 0]).tolist())
    u, v = one.head.vectors(one.encoder(inputs.batch, keep=True))[inputs.place].chunk(2)
    logit = one.head(u, v)[:, 0]
    labels = torch.tensor([0.0, 1.0] * 3)
    sums = one(inputs)
    assert gap(sums["hard"], F.binary_cross_entropy_with_logits(logit, labels, reduction="sum")) <= 1e-5
    assert sums["accuracy"] == ((logit > 0) == labels.bool()).sum()


def test_scores() -> None:
    one = task(1, LOGITS[:, :1], regression=True)
    rows = [Sample(row.id, row.sequences, label=0.5) for row in pairs(LENGTHS)]
    sums = one(one.prepare(rows, 0, 0))
    assert sums.keys() == {"soft", "hard"}


def test_what_contradicts_itself() -> None:
    with pytest.raises(InputError, match=r"the teacher's logits are \[6, 3\], the student has 2 outputs"):
        task(2)
    with pytest.raises(InputError, match=r"PairHead.layers: 4, but the encoder has 2"):
        PairClassifier(PairHead(labels=1), tiny_encoder("bert", layers=2))
    with pytest.raises(InputError, match="sample 0 has 1 texts of its own"):
        task().prepare([Sample(0, (random_ids([4])[0],), label=0)], 0, 0)
    with pytest.raises(InputError, match="log odds are one number"):
        task(1, LOGITS[:, :2], SoftLabels(compare="kl"))
