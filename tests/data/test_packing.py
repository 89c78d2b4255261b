"""Packing: every sample once, within the budget, well filled, and the same for the same seed."""

from __future__ import annotations

import gzip
import json
import zlib
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.config import from_json, to_json
from bothways.data.packing import Plan, SampleCount, TokenBudget, capacity, pack
from bothways.errors import InputError
from bothways.ragged import Batch, Capacity


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    tokens = draw(st.integers(1, 60))
    lengths = draw(st.lists(st.integers(1, tokens), min_size=1, max_size=120))
    slots = draw(st.none() | st.integers(1, 8))
    window = draw(st.integers(1, 6))
    return Plan(np.array(lengths), TokenBudget(tokens=tokens, slots=slots, window=window), draw(st.integers(0, 2**40)))


def as_lists(batches: object) -> list[list[int]]:
    return [batch.tolist() for batch in batches]  # type: ignore[attr-defined]


def test_pack_worked_by_hand() -> None:
    # Longest first 6 5 4 3 2, into ceil(20 / 10) = 2 batches, each to the emptier (the first of equals):
    # 6 | ; 6 | 5 ; 6 | 5 4 ; 6 3 | 5 4 ; then 2 finds 9 and 9 and no room: a third batch. Dealt again to three:
    # 6 | 5 | 4 ; 3 to the third (7); 2 to the second (7).
    assert as_lists(pack(np.array([2, 3, 4, 5, 6]), tokens=10)) == [[4], [3, 0], [2, 1]]
    # with room for 11: 6 | 5 ; 5 4 ; 6 3 ; then 2 joins the first of 9 and 9
    assert as_lists(pack(np.array([2, 3, 4, 5, 6]), tokens=11)) == [[4, 1, 0], [3, 2]]


def test_pack_with_slots_worked_by_hand() -> None:
    # five samples, two a batch: at least three batches; 6 | 5 | 4 ; 3 to the third, full ; 2 to the second
    assert as_lists(pack(np.array([2, 3, 4, 5, 6]), tokens=100, slots=2)) == [[4], [3, 0], [2, 1]]


@given(plans(), st.integers(0, 3))
def test_each_sample_once_and_within_the_budget(plan: Plan, number: int) -> None:
    assert isinstance(plan.batching, TokenBudget)
    for epoch in (plan.epoch(number), plan.in_order()):
        batches = list(epoch)
        assert sorted(i for batch in batches for i in batch) == list(range(len(plan.lengths)))
        for batch in batches:
            assert len(batch) > 0
            assert plan.lengths[batch].sum() <= plan.batching.tokens
            assert len(batch) <= (plan.batching.slots or len(plan.lengths))
            assert (np.diff(plan.lengths[batch]) <= 0).all()  # longest first: equal lengths are neighbours


@given(plans(), st.integers(0, 3))
def test_batches_are_a_function_of_seed_and_epoch(plan: Plan, number: int) -> None:
    again = Plan(plan.lengths.copy(), plan.batching, plan.seed)
    assert as_lists(again.epoch(number)) == as_lists(plan.epoch(number))
    assert again.fingerprint == plan.fingerprint
    last = again.epoch(number).windows - 1
    assert as_lists(again.epoch(number).window(last)) == as_lists(plan.epoch(number))[-len(plan.epoch(number).window(last)) :]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(1, 20), st.integers(0, 3))
def test_sample_counts_are_even(lengths: list[int], samples: int, number: int) -> None:
    batches = list(Plan(np.array(lengths), SampleCount(samples=samples), 0).epoch(number))
    sizes = [len(batch) for batch in batches]
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert len(sizes) == -(-len(lengths) // samples)
    assert max(sizes) - min(sizes) <= 1


def test_epochs_and_seeds_differ() -> None:
    lengths = np.full(1000, 10)
    batching = TokenBudget(tokens=100)
    orders = [np.concatenate(list(Plan(lengths, batching, seed).epoch(epoch))).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert np.concatenate(list(Plan(lengths, batching, 0).in_order())).tolist() != orders[0]


def test_another_plan_has_another_fingerprint() -> None:
    lengths = np.array([3, 4, 5])
    plans = [
        Plan(lengths, TokenBudget(tokens=10), 0),
        Plan(lengths, TokenBudget(tokens=11), 0),
        Plan(lengths, TokenBudget(tokens=10), 1),
        Plan(lengths[::-1].copy(), TokenBudget(tokens=10), 0),
    ]
    assert len({plan.fingerprint for plan in plans}) == 4


def paragraphs(shared: Path, novels: int, longest: int) -> np.ndarray:
    """Lengths of the pieces of real paragraphs, a token for every four characters."""
    with gzip.open(shared / "data/text/novels-eng.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in islice(file, novels)]
    tokens = [len(line) // 4 for text in texts for line in text.splitlines() if len(line) >= 4]
    pieces = [min(room, longest - 2) + 2 for n in tokens for room in range(n, 0, -(longest - 2))]
    return np.array(pieces)


@pytest.mark.parametrize(("longest", "tokens"), [(128, 2048), (128, 8192), (512, 4096)])
def test_real_lengths_fill_over_99_percent(shared: Path, longest: int, tokens: int) -> None:
    lengths = paragraphs(shared, 12, longest)
    assert len(lengths) > 20_000
    fill = Plan(lengths, TokenBudget(tokens=tokens), 0).epoch(0).fill
    assert fill.share > 0.99
    assert fill.share == pytest.approx(lengths.sum() / (fill.batches * tokens))


def test_batches_of_a_window_are_alike(shared: Path) -> None:
    """What dealing buys over best-fit decreasing: no batch of long texts only, none of short ones only."""
    lengths = paragraphs(shared, 6, 128)
    batches = Plan(lengths, TokenBudget(tokens=4096), 0).epoch(0).window(0)
    counts = [len(batch) for batch in batches]
    tokens = [lengths[batch].sum() for batch in batches]
    assert max(counts) - min(counts) <= 0.1 * np.mean(counts)
    assert max(tokens) - min(tokens) <= 0.01 * np.mean(tokens)


def test_fill_counts_what_is_there() -> None:
    fill = Plan(np.array([2, 3, 4, 5, 6]), TokenBudget(tokens=11), 0).epoch(0).fill
    assert (fill.batches, fill.samples, fill.tokens) == (2, 5, 20)
    assert fill.share == pytest.approx(20 / 22)


def test_a_sample_over_the_budget_is_refused() -> None:
    with pytest.raises(InputError, match="sample 1 has 11 tokens, a batch at most 10"):
        Plan(np.array([3, 11, 5]), TokenBudget(tokens=10), 0)


def test_no_samples_are_refused() -> None:
    with pytest.raises(InputError, match="no samples"):
        Plan(np.zeros(0, np.int64), SampleCount(samples=2), 0)


def test_batching_survives_json() -> None:
    batching = TokenBudget(tokens=4096, slots=64)
    assert from_json(TokenBudget, to_json(batching), "here") == batching
    with pytest.raises(InputError, match="greater than 0"):
        from_json(TokenBudget, '{"tokens": 0}', "here")


@pytest.mark.parametrize(
    ("batching", "expected"),
    [
        (TokenBudget(tokens=1024, window=32), (3859706205, 254021225, 3084321279)),
        (TokenBudget(tokens=512, slots=9), (724689699, 902739646, 1594354532)),
        (SampleCount(samples=24), (991918169, 1430802930, 3662039709)),
    ],
)
def test_the_batches_are_those_of_the_first_version(batching: TokenBudget | SampleCount, expected: tuple[int, int, int]) -> None:
    """Checksums taken at version 0.1.0: a run that was begun then goes on with the same batches."""
    plan = Plan(np.random.default_rng(5).integers(3, 130, 4000), batching, 11)
    sums = [zlib.crc32(b"".join(batch.astype(np.int64).tobytes() + b"|" for batch in plan.epoch(n))) for n in (0, 3)]
    assert (plan.fingerprint, *sums) == expected


@given(plans())
def test_every_batch_and_its_filler_fit_the_capacity(plan: Plan) -> None:
    room = capacity(plan.lengths, plan.batching)
    for batch in plan.epoch(0):
        lengths = plan.lengths[batch].tolist()
        filled = Batch.of([[5] * length for length in lengths]).to_capacity(room)
        assert (filled.ragged.tokens, filled.ragged.sequences, filled.ragged.longest) == (room.tokens, room.slots, room.longest)
        assert list(filled.ragged.real) == lengths


def test_capacity_worked_by_hand() -> None:
    lengths = np.array([3, 10, 7])
    # ten sequences of three tokens, and one of filler; or four slots, and filler in sequences of ten
    assert capacity(lengths, TokenBudget(tokens=32)) == Capacity(tokens=32, slots=11, longest=10)
    assert capacity(lengths, TokenBudget(tokens=32, slots=4)) == Capacity(tokens=32, slots=8, longest=10)
    with pytest.raises(InputError, match="batches of a number of samples have no fixed shape"):
        capacity(lengths, SampleCount(samples=4))


def test_filler_is_less_than_a_percent() -> None:
    """Of batches as a run has them: 8,192 tokens, of texts of which most are short."""
    lengths = np.minimum(np.random.default_rng(0).geometric(1 / 180, 60_000) + 2, 512)
    plan = Plan(lengths, TokenBudget(tokens=8192), seed=0)
    room = capacity(lengths, plan.batching)
    filler = [room.tokens - int(lengths[batch].sum()) for batch in plan.epoch(0)]
    assert 0 < sum(filler) < 0.01 * room.tokens * len(filler)
