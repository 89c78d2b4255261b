"""Batches that grow: how many micro-batches each step has, and that a resumed run has the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pydantic
import pytest
import torch

from bothways.training.checkpoint import WEIGHTS, latest
from bothways.training.interrupt import Interrupted
from bothways.training.ramp import EqualUpdates, Linearly, Ramp, micro_batches, updates_within
from bothways.training.schedule import Count, Fraction, Steps, Tokens

from .test_loop import at, stop_now
from .toy import Stream, Toy, run, settings


def test_each_size_has_equally_many_updates() -> None:
    """From 2 to 5 micro-batches, seven updates each; the full size for the rest."""
    ramp = EqualUpdates(first=2, updates=7)
    sizes = [micro_batches(ramp, 5, step, 0, 1) for step in range(100)]
    assert sizes == [2] * 7 + [3] * 7 + [4] * 7 + [5] * 79


def test_an_increment_that_does_not_divide_ends_at_the_full_size() -> None:
    ramp = EqualUpdates(first=1, increment=3, updates=2)
    assert [micro_batches(ramp, 6, step, 0, 1) for step in range(8)] == [1, 1, 4, 4, 6, 6, 6, 6]


def test_modernberts_warm_up_in_tokens() -> None:
    """768 to 4,608 sequences of 1,024 tokens within 50 billion tokens, in micro-batches of 96 sequences: 8 to 48.

    1,100 micro-batches of 98,304 tokens are an update of every size from 8 to 47; 462 of each take 49,958,092,800 tokens.
    """
    updates = updates_within(50_000_000_000, 96 * 1024, first=8, full=48)
    assert updates == 462
    ramp = EqualUpdates(first=8, updates=updates)
    counts = Counter(micro_batches(ramp, 48, step, 0, 1) for step in range(40 * updates + 5))
    assert counts == dict.fromkeys(range(8, 48), updates) | {48: 5}
    assert sum(size * count for size, count in counts.items() if size < 48) * 96 * 1024 == 49_958_092_800


@pytest.mark.parametrize("until", [Fraction(of=0.6), Count(count=600)])
def test_a_straight_line_is_full_at_60_percent(until: Fraction | Count) -> None:
    """Cramming's: 1 micro-batch at first, all 64 from 60 % of the budget on, and 1 + 31 halfway there."""
    ramp = Linearly(until=until)
    sizes = [micro_batches(ramp, 64, 0, done, 1000) for done in range(1001)]
    assert (sizes[0], sizes[300], sizes[599], sizes[600], sizes[1000]) == (1, 32, 63, 64, 64)
    assert sizes == sorted(sizes)


def test_seconds_of_a_budget_of_time() -> None:
    assert [micro_batches(Linearly(), 10, 0, seconds, 7200.0) for seconds in (0.0, 2160.5, 4319.9, 4320.0)] == [1, 5, 9, 10]


@pytest.mark.parametrize("ramp", [EqualUpdates(updates=3), Linearly()], ids=lambda one: one.type)
@pytest.mark.parametrize("budget", [Steps(count=20), Tokens(count=900)], ids=lambda one: one.type)
def test_a_stopped_run_goes_on_with_the_same_sizes(ramp: Ramp, budget: Steps | Tokens, tmp_path: Path) -> None:
    changes = {"ramp": ramp, "accumulate": 4, "budget": budget}
    stream = Stream(None)
    straight = run(tmp_path / "straight", changes=changes, open_stream=lambda _: stream)
    assert stream.batch < 4 * straight.step  # it was smaller at first
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", changes=changes, after_step=at(5, stop_now))
    torch.manual_seed(9)
    run(tmp_path / "stopped", module=Toy(dropout=0.2, seed=8), changes=changes)
    one, other = latest(tmp_path / "straight"), latest(tmp_path / "stopped")
    assert one is not None
    assert other is not None
    assert one.name == other.name
    assert (one / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()


def test_a_batch_does_not_shrink() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"ramp.first: 5 micro-batches, but .* the full batch, is 4"):
        settings(ramp=EqualUpdates(first=5, updates=2), accumulate=4)
