"""Boundaries of packed sequences."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import lengths_lists

from bothways.errors import InputError
from bothways.ragged import Batch, Capacity, Encoded, Ragged


def test_golden() -> None:
    ragged = Ragged.of([2, 0, 3])
    assert ragged.starts.tolist() == [0, 2, 2, 5]
    assert ragged.starts.dtype == torch.int32
    assert ragged.positions.tolist() == [0, 1, 0, 1, 2]
    assert ragged.segments.tolist() == [0, 0, 2, 2, 2]
    assert (ragged.tokens, ragged.sequences, ragged.longest) == (5, 3, 3)
    assert ragged.offsets == (0, 2, 2, 5)
    assert Ragged.of([2], longest=9).longest == 9


@given(lengths_lists)
def test_it_is_what_a_loop_would_count(lengths: list[int]) -> None:
    ragged = Ragged.of(lengths)
    assert ragged.positions.tolist() == [i for length in lengths for i in range(length)]
    assert ragged.segments.tolist() == [number for number, length in enumerate(lengths) for _ in range(length)]
    assert list(ragged.lengths) == ragged.starts.diff().tolist() == lengths
    assert list(ragged.offsets) == ragged.starts.tolist()


@given(lengths_lists, st.randoms())
def test_taking_sequences_in_another_order(lengths: list[int], random: object) -> None:
    ragged = Ragged.of(lengths)
    order = random.sample(range(len(lengths)), len(lengths))  # type: ignore[attr-defined]
    taken, rows = ragged.take(order)
    assert list(taken.lengths) == [lengths[i] for i in order]
    parts = torch.arange(ragged.tokens).split(lengths)
    assert rows.tolist() == [row for i in order for row in parts[i].tolist()]


def test_nothing_at_all() -> None:
    ragged = Ragged.of([])
    assert (ragged.tokens, ragged.sequences, ragged.longest, ragged.starts.tolist()) == (0, 0, 0, [0])
    assert Batch.of([]).ids.shape == (0,)
    assert ragged.take([])[0].sequences == 0


@pytest.mark.parametrize(("lengths", "longest"), [([3, -1], None), ([3, 4], 3)])
def test_impossible_boundaries(lengths: list[int], longest: int | None) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Ragged.of(lengths, longest)


def test_a_batch_packs_in_the_order_given() -> None:
    batch = Batch.of([[7, 8], [], np.array([9], dtype=np.int32)], types=[[0, 1], [], [1]], samples=[5, 6, 7])
    assert batch.ids.tolist() == [7, 8, 9]
    assert batch.ids.dtype == torch.int64
    assert batch.types is not None
    assert batch.types.tolist() == [0, 1, 1]
    assert batch.samples == (5, 6, 7)
    assert batch.ragged.lengths == (2, 0, 1)
    changed = batch.with_ids(batch.ids + 1)
    assert (changed.ids.tolist(), batch.ids.tolist()) == ([8, 9, 10], [7, 8, 9])


def test_global_tokens() -> None:
    batch = Batch.of([[7, 8], [], [9]], global_mask=[[True, False], [], np.array([True])])
    assert batch.global_mask is not None
    assert batch.global_mask.dtype == torch.bool
    assert batch.global_mask.tolist() == [True, False, True]
    assert batch.with_ids(batch.ids + 1).global_mask is batch.global_mask
    assert batch.to("meta").global_mask.is_meta  # type: ignore[union-attr]
    assert Batch.of([[7, 8], [], [9]]).with_first_global().global_mask.tolist() == [True, False, True]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="as many truth values as ids"):
        Batch.of([[1, 2]], global_mask=[[True]])


def test_token_types_need_the_lengths_of_the_ids() -> None:
    with pytest.raises(InputError, match="as many types as ids"):
        Batch.of([[1, 2]], types=[[0]])


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Ragged.of([1]).longest = 3  # type: ignore[misc]


def test_encoded_splits() -> None:
    hidden = torch.arange(6.0).view(3, 2)
    parts = Encoded(hidden, Ragged.of([1, 0, 2])).split()
    assert [part.tolist() for part in parts] == [[[0.0, 1.0]], [], [[2.0, 3.0], [4.0, 5.0]]]


def test_moving_to_where_it_is_copies_nothing() -> None:
    ragged = Ragged.of([1, 2])
    assert ragged.to("cpu") is ragged
    assert ragged.to("meta").positions.is_meta
    assert ragged.to("meta").lengths == (1, 2)


def test_filler_worked_by_hand() -> None:
    """Five tokens of twelve: sequences of four and three tokens behind them, then an empty slot."""
    given = Batch.of([[7, 8], [], [9, 7, 8]], types=[[1, 1], [], [0, 0, 1]], global_mask=[[True, False], [], [False] * 3])
    filled = given.to_capacity(Capacity(tokens=12, slots=6, longest=4))
    assert filled.ragged.lengths == (2, 0, 3, 4, 3, 0)
    assert filled.ragged.real == (2, 0, 3)
    assert (filled.tokens, filled.ragged.filler, filled.ragged.tokens, filled.ragged.longest) == (5, 7, 12, 4)
    assert filled.ids.tolist() == [7, 8, 9, 7, 8, *[0] * 7]
    assert filled.types is not None
    assert filled.types.tolist() == [1, 1, 0, 0, 1, *[0] * 7]
    assert filled.global_mask is not None
    assert filled.global_mask.tolist() == [True, *[False] * 11]
    assert (given.tokens, given.ragged.filler, given.ragged.real) == (5, 0, given.ragged.lengths)
    longer = replace(filled, global_mask=None).filled(5, filler=3)
    assert (longer.ragged.lengths, longer.tokens) == ((5, 0, 5, 5, 5, 0), 10)
    assert filled.to_capacity(Capacity(tokens=12, slots=7, longest=4)).tokens == 5


@pytest.mark.parametrize(
    "room",
    [Capacity(tokens=4, slots=9, longest=3), Capacity(tokens=9, slots=3, longest=3), Capacity(tokens=9, slots=9, longest=2)],
)
def test_a_batch_that_does_not_fit(room: Capacity) -> None:
    with pytest.raises(InputError, match=r"a batch of 5 tokens in 2 sequences of at most 3 does not fit Capacity\(tokens="):
        Batch.of([[7, 8], [9, 7, 8]]).to_capacity(room)
