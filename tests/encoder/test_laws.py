"""The ragged laws of encoders and poolings: a sequence never learns who shares its batch (X6)."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import CONFIGS, entering, gap, lengths_lists, random_ids, rows_of, tiny_encoder

from bothways.encoder.encoder import Encoder
from bothways.layers.heads import Pooling, pool
from bothways.ragged import Batch, Encoded, Ragged

ENCODERS = {name: tiny_encoder(name) for name in CONFIGS}
encoders = pytest.mark.parametrize("name", ENCODERS)
poolings = pytest.mark.parametrize("pooling", get_args(Pooling))
TOLERANCE = 1e-5


def encode(encoder: Encoder, sequences: list[np.ndarray]) -> Encoded:
    with torch.no_grad():
        return encoder(Batch.of(sequences))


@encoders
@settings(max_examples=15)
@given(lengths=lengths_lists)
def test_packed_is_alone(name: str, lengths: list[int]) -> None:
    sequences = random_ids(lengths)
    packed = encode(ENCODERS[name], sequences)
    for together, sequence in zip(packed.split(), sequences, strict=True):
        assert gap(together, encode(ENCODERS[name], [sequence]).hidden) <= TOLERANCE
    for pooling in get_args(Pooling):
        vectors = pool(pooling, packed.hidden, packed.ragged)
        for vector, sequence in zip(vectors, sequences, strict=True):
            alone = encode(ENCODERS[name], [sequence])
            assert gap(vector, pool(pooling, alone.hidden, alone.ragged)[0]) <= TOLERANCE


@encoders
@settings(max_examples=15)
@given(lengths=lengths_lists, random=st.randoms(use_true_random=False))
def test_another_order_gives_the_same_in_that_order(name: str, lengths: list[int], random: object) -> None:
    order = random.sample(range(len(lengths)), len(lengths))  # type: ignore[attr-defined]
    sequences = random_ids(lengths)
    here, there = encode(ENCODERS[name], sequences), encode(ENCODERS[name], [sequences[i] for i in order])
    for place, i in enumerate(order):
        assert gap(there.split()[place], here.split()[i]) <= TOLERANCE
    for pooling in get_args(Pooling):
        ours, theirs = pool(pooling, there.hidden, there.ragged), pool(pooling, here.hidden, here.ragged)[order]
        assert gap(ours, theirs) <= TOLERANCE


@encoders
@settings(max_examples=15)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), slots=st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_empty_slots_are_invisible(name: str, lengths: list[int], slots: list[int]) -> None:
    """Wherever they stand, and whatever capacity `longest` states."""
    sequences = random_ids(lengths)
    padded = list(sequences)
    for slot in slots:
        padded.insert(slot, np.zeros(0, dtype=np.int64))
    batch = Batch.of(padded)
    roomy = Batch(batch.ids, Ragged.of(batch.ragged.lengths, longest=50))
    plain = encode(ENCODERS[name], sequences)
    with torch.no_grad():
        spaced = ENCODERS[name](roomy)
    assert gap(spaced.hidden, plain.hidden) <= TOLERANCE
    for pooling in get_args(Pooling):
        vectors = pool(pooling, spaced.hidden, spaced.ragged)
        present = torch.tensor([len(sequence) > 0 for sequence in padded])
        assert gap(vectors[present], pool(pooling, plain.hidden, plain.ragged)) <= TOLERANCE
        assert not vectors[~present].any()


@encoders
@settings(max_examples=10)
@given(lengths=st.lists(st.integers(1, 14), min_size=2, max_size=5), chosen=st.integers(0, 4))
def test_no_gradient_crosses_documents(name: str, lengths: list[int], chosen: int) -> None:
    """Exactly none: of one sequence's outputs, every pooling's included, with respect to another's vectors."""
    own = chosen % len(lengths)
    with entering(ENCODERS[name]) as vectors:
        encoded = ENCODERS[name](Batch.of(random_ids(lengths)))
    for out in [encoded.split()[own], *(pool(pooling, encoded.hidden, encoded.ragged)[own] for pooling in get_args(Pooling))]:
        (gradient,) = torch.autograd.grad((out * torch.randn_like(out)).sum(), vectors, retain_graph=True)
        inside = gradient[rows_of(encoded.ragged, own)]
        assert inside.any()
        assert torch.count_nonzero(gradient) == torch.count_nonzero(inside)


@encoders
def test_changing_another_sequence_changes_nothing(name: str) -> None:
    """Not a bit: lengths, and so the shapes of all sums, are the same."""
    sequences = random_ids([9, 30, 9])
    changed = [sequences[0], random_ids([30], seed=5)[0], sequences[2]]
    here, there = encode(ENCODERS[name], sequences).split(), encode(ENCODERS[name], changed).split()
    assert torch.equal(here[0], there[0])
    assert torch.equal(here[2], there[2])
    assert not torch.equal(here[1], there[1])


@poolings
def test_batches_of_empty_slots_alone(pooling: Pooling) -> None:
    for encoder in ENCODERS.values():
        encoded = encode(encoder, [np.zeros(0, dtype=np.int64)] * 2)
        assert encoded.hidden.shape == (0, encoder.config.hidden_size)
        assert not pool(pooling, encoded.hidden, encoded.ragged).any()
