"""Mixtures: the declared shares in every stretch, each source pass by pass, and the plain plan where there is one source."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.config import from_json
from bothways.data.loader import Loader
from bothways.data.masking import ROBERTA, mask_tokens
from bothways.data.mixture import Joined, Mixed, Mixture, mixed
from bothways.data.order import Drawn
from bothways.data.packing import Plan, SampleCount, TokenBudget
from bothways.data.sample import Epochs, Sample
from bothways.data.tally import Tally, tally
from bothways.data.vocabulary import Vocabulary
from bothways.errors import InputError

Row = tuple[int, int, tuple[int, ...]]
"""A sample's number, its pass, and which of its tokens are masked."""

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")


Arguments = tuple[tuple[np.ndarray, ...], tuple[float, ...], int]


@st.composite
def mixtures(draw: st.DrawFn) -> Arguments:
    """What a `Mixed` is made of (made here, its checked types would draw random numbers of their own)."""
    sources = draw(st.integers(1, 4))
    lengths = [draw(st.lists(st.integers(1, 20), min_size=1, max_size=30)) for _ in range(sources)]
    weights = [draw(st.floats(0.05, 5.0)) for _ in range(sources)]
    return tuple(map(np.array, lengths)), tuple(weights), draw(st.sampled_from([0, 100, 1000]))


def sequence(order: Mixed, seed: int, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    drawn = [order.draw(seed, epoch) for epoch in range(rounds)]
    return np.concatenate([one.samples for one in drawn]), np.concatenate([one.epochs for one in drawn])


def pairs(drawn: Drawn) -> list[tuple[int, int]]:
    """Samples and their passes."""
    return list(zip(drawn.samples.tolist(), np.broadcast_to(drawn.epochs, len(drawn)).tolist(), strict=True))


def owners(order: Mixed, samples: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.cumsum([len(lengths) for lengths in order.lengths]), samples, side="right")


@given(mixtures(), st.integers(0, 2**40))
def test_every_source_goes_through_its_own_passes(arguments: Arguments, seed: int) -> None:
    """The sequence of a source is: each of its samples once in pass 0, then each once in pass 1 ..., whatever the others do."""
    order = Mixed(*arguments)
    samples, epochs = sequence(order, seed, 4)
    whose = owners(order, samples)
    start = 0
    for source, lengths in enumerate(order.lengths):
        own, passes = samples[whose == source] - start, epochs[whose == source]
        expected = np.repeat(np.arange(len(own) // len(lengths) + 1), len(lengths))[: len(own)]
        np.testing.assert_array_equal(passes, expected)
        for number in range(len(own) // len(lengths)):
            assert sorted(own[passes == number].tolist()) == list(range(len(lengths)))
        last = own[len(own) // len(lengths) * len(lengths) :]
        assert len(set(last.tolist())) == len(last)
        start += len(lengths)


@given(mixtures(), st.integers(0, 2**40), st.integers(0, 200), st.integers(1, 200))
def test_every_stretch_has_the_declared_shares_to_within_a_sample(
    arguments: Arguments, seed: int, begin: int, count: int
) -> None:
    """Each source is within half a sample of its line at any time: so are both ends of a stretch."""
    order = Mixed(*arguments)
    samples, _ = sequence(order, seed, 4)
    stretch = samples[begin : begin + count]
    lengths = np.concatenate(order.lengths)
    tokens = np.bincount(owners(order, stretch), weights=lengths[stretch], minlength=len(order.lengths))
    shares = np.array(order.weights) / sum(order.weights)
    # e_i, a source's error at an end, is at most half its longest sample; that of its share is e_i - share_i * (all e)
    longest = np.array([one.max() for one in order.lengths])
    bound = (1 - shares) * longest + shares * (longest.sum() - longest)
    assert (abs(tokens - shares * tokens.sum()) <= bound + 1e-6).all()


def test_shares_worked_by_hand() -> None:
    # On the common line a sample of a (share 3/4) is 6 / 0.75 = 8 long, one of b 4 / 0.25 = 16. Middles of a: 4, 12, 20, 28 ...;
    # of b: 8, 24, 40 ... Taken in order: a b a a | b a a b a | ...
    order = Mixed((np.array([6, 6, 6]), np.array([4, 4])), (0.75, 0.25))
    assert owners(order, sequence(order, 0, 2)[0]).tolist() == [0, 1, 0, 0, 1, 0, 0, 1, 0]
    # a's pass ends at 24 on the line, b's at 32: a is used up first, and a round is 24
    assert [len(order.draw(0, epoch)) for epoch in range(4)] == [4, 5, 4, 5]
    assert order.tokens_before(3) == 72


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60), st.integers(0, 2**40), st.floats(0.1, 9.0))
def test_one_source_is_the_plain_plan(lengths: list[int], seed: int, weight: float) -> None:
    batching = TokenBudget(tokens=25, window=2)
    plain = Plan(np.array(lengths), batching, seed)
    mixture = Plan(np.array(lengths), batching, seed, Mixed((np.array(lengths),), (weight,), 10_000))
    assert mixture.fingerprint == plain.fingerprint
    for number in (0, 1, 7):
        ours, theirs = mixture.epoch(number), plain.epoch(number)
        assert ours.windows == theirs.windows
        for window in range(ours.windows):
            for one, other in zip(ours.draws(window), theirs.draws(window), strict=True):
                np.testing.assert_array_equal(one.samples, other.samples)
                assert (np.asarray(one.epochs) == number).all()
                assert other.epochs == number


@given(mixtures(), st.integers(0, 100))
def test_batches_hold_what_was_drawn(arguments: Arguments, epoch: int) -> None:
    order = Mixed(*arguments)
    plan = Plan(np.concatenate(order.lengths), TokenBudget(tokens=30, window=3), 5, order)
    packed = plan.epoch(epoch)
    batches = [batch for window in range(packed.windows) for batch in packed.draws(window)]
    assert sorted(pair for batch in batches for pair in pairs(batch)) == sorted(pairs(order.draw(5, epoch)))
    assert all(plan.lengths[batch.samples].sum() <= 30 for batch in batches)


def test_other_mixtures_have_other_fingerprints() -> None:
    lengths = np.full(9, 5)
    orders = [
        Mixed((lengths[:4], lengths[4:]), (1.0, 1.0)),
        Mixed((lengths[:5], lengths[5:]), (1.0, 1.0)),
        Mixed((lengths[:4], lengths[4:]), (1.0, 2.0)),
        Mixed((lengths[:4], lengths[4:]), (1.0, 1.0), 100),
        None,
    ]
    assert len({Plan(lengths, TokenBudget(tokens=9), 0, order).fingerprint for order in orders}) == len(orders)


# ------------------------------------------------------------------------------------------ the stream of a mixture


class Numbers:
    """Samples whose ids follow from the seed of the source."""

    def __init__(self, count: int, seed: int) -> None:
        self.lengths = np.random.default_rng(seed).integers(3, 20, count)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Sample:
        return Sample(number, (np.full(self.lengths[number], 10 + number, np.int32),))


def prepare(samples: list[Sample], seed: int, epoch: Epochs) -> list[Row]:
    lengths = np.array([len(sample.sequences[0]) for sample in samples])
    ids = np.concatenate([sample.sequences[0] for sample in samples])
    numbers = np.array([sample.id for sample in samples])
    masked = mask_tokens(ROBERTA, Vocabulary(1000, 4, frozenset(range(5))), ids, lengths, numbers, seed, epoch)
    begin = np.cumsum(lengths) - lengths
    epochs = np.broadcast_to(epoch, len(samples)).tolist()
    return [
        (number, own, tuple(p - start for p in masked.positions.tolist() if start <= p < start + length))
        for number, own, start, length in zip(numbers.tolist(), epochs, begin.tolist(), lengths.tolist(), strict=True)
    ]


def loader(workers: int = 0, weights: tuple[float, ...] = (0.5, 0.3, 0.2)) -> Loader[list[Row]]:
    parts, batching = [Numbers(40, 0), Numbers(15, 1), Numbers(3, 2)], TokenBudget(tokens=64, window=4)
    return Loader(Joined(parts), batching, prepare, 3, workers, mixed(parts, weights, batching))


def test_workers_and_resumes_change_nothing() -> None:
    stream = loader().open()
    states, expected = [stream.state()], []
    for inputs in islice(stream, 60):
        expected.append(inputs)
        states.append(stream.state())
    assert states[-1]["epoch"] > 0
    for workers in (1, 3):
        stream = loader(workers).open()
        assert list(islice(stream, 60)) == expected
        stream.close()
    for stop in range(0, 55, 6):
        for workers in (0, 1) if stop % 18 == 0 else (0,):
            stream = loader(workers).open(states[stop])
            assert list(islice(stream, 5)) == expected[stop : stop + 5]
            assert stream.state() == states[stop + 5]
            stream.close()
    with pytest.raises(InputError, match="not that of the saved position"):
        loader(weights=(0.5, 0.2, 0.3)).open(states[-1])


def test_masks_are_those_of_seed_pass_and_sample() -> None:
    """The third source is read many times during one pass of the first: every time with other masks, always the same ones."""
    rows = [row for inputs in islice(loader().open(), 60) for row in inputs]
    lengths = np.concatenate([Numbers(40, 0).lengths, Numbers(15, 1).lengths, Numbers(3, 2).lengths])
    assert (
        max(epoch for number, epoch, _ in rows if number >= 55) > 3 * max(epoch for number, epoch, _ in rows if number < 40) > 0
    )
    assert len({(number, epoch) for number, epoch, _ in rows}) == len(rows)
    for number, epoch, positions in rows:
        ids = np.full(lengths[number], 9)
        alone = mask_tokens(
            ROBERTA, Vocabulary(1000, 4, frozenset(range(5))), ids, lengths[[number]], np.array([number]), 3, epoch
        )
        assert positions == tuple(alone.positions.tolist())
    assert len({positions for number, _, positions in rows if number == 55}) > 1


def test_a_tally_counts_the_batches_handed_out() -> None:
    mixture = loader()
    parts = [Numbers(40, 0), Numbers(15, 1), Numbers(3, 2)]
    data, lengths = Joined(parts), np.concatenate([part.lengths for part in parts])
    stream, samples, tokens = mixture.open(), [0, 0, 0], [0, 0, 0]
    found = list[Tally]()
    for count in range(50):
        found = tally(mixture.plan, stream.state(), data.sources, ("a", "b", "c"), (5.0, 3.0, 2.0), parts, specials=2)
        assert ([one.samples for one in found], [one.tokens for one in found]) == (samples, tokens), count
        for number, _, _ in next(stream):
            source = 0 if number < 40 else 1 if number < 55 else 2
            samples[source] += 1
            tokens[source] += int(lengths[number])
    assert [one.declared for one in found] == [0.5, 0.3, 0.2]
    assert sum(one.share for one in found) == pytest.approx(1.0)
    last = found[2]
    assert last.passes == pytest.approx((last.tokens - 2 * last.samples) / (lengths[55:].sum() - 6))


def test_evaluation_is_mixed_too() -> None:
    rows = [row for inputs in loader().evaluation() for row in inputs]
    assert rows == [row for inputs in loader(1).evaluation() for row in inputs]
    assert {0 if number < 40 else 1 if number < 55 else 2 for number, _, _ in rows} == {0, 1, 2}


def test_counts_of_samples_can_be_mixed() -> None:
    parts = [Numbers(40, 0), Numbers(15, 1)]
    order = mixed(parts, (0.5, 0.5), SampleCount(samples=8))
    sizes = [len(batch) for batch in Plan(Joined(parts).lengths, SampleCount(samples=8), 0, order).epoch(0)]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= 8


@settings(max_examples=20)
@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_no_rounding_over_long_runs(a: int, b: int) -> None:
    """Rounds end where the next ones begin, exactly, after any number of them."""
    order = Mixed((np.array([7, 11, 13]), np.array([5])), (a / 10**6, b / 10**6))
    for epoch in (0, 10**6, 10**9):
        drawn = [order.draw(1, epoch + more) for more in range(3)]
        samples = np.concatenate([one.samples for one in drawn])
        epochs = np.concatenate([one.epochs for one in drawn])
        for source, size in enumerate((3, 1)):
            own = epochs[owners(order, samples) == source]
            full = np.bincount(own - own.min())[1:-1] if len(own) else np.zeros(0)
            assert (full == size).all()
    assert order.tokens_before(10**9) == int(10**9 * order._round)
    assert isinstance(order._round, Fraction)


# ------------------------------------------------------------------------------------------ what is refused


def test_bad_mixtures_are_refused() -> None:
    part = '{"name": "a", "weight": 1.0, "source": {"type": "tokens", "folder": "x"}}'
    assert len(from_json(Mixture, f'{{"parts": [{part}]}}', "here").parts) == 1
    with pytest.raises(InputError, match="two parts of the mixture are called 'a'"):
        from_json(Mixture, f'{{"parts": [{part}, {part}]}}', "here")
    for bad in ('"parts": []', f'"parts": [{part.replace("1.0", "0.0")}]', f'"parts": [{part.replace("a", "../a", 1)}]'):
        with pytest.raises(InputError, match="here: "):
            from_json(Mixture, f"{{{bad}}}", "here")
    with pytest.raises(InputError, match="source 2 of the mixture has no samples"):
        Mixed((np.array([3]), np.array([], np.int64)), (1.0, 1.0))
