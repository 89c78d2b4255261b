"""The loader: the same inputs for any number of workers and after any resume, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.data.loader import Loader, Share, Stream
from bothways.data.masking import MODERNBERT, ROBERTA, Masking, mask_tokens
from bothways.data.packing import SampleCount, TokenBudget, capacity
from bothways.data.sample import Sample
from bothways.data.vocabulary import Vocabulary
from bothways.errors import InputError
from bothways.ragged import Capacity

Batching = TokenBudget | SampleCount

# three workers are more than a small machine has cores: torch advises against it, the sequence must not care
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")


@dataclass(frozen=True, eq=False)
class Inputs:
    samples: list[int]
    ids: torch.Tensor
    positions: torch.Tensor
    threads: int
    process: int

    def key(self) -> tuple[object, ...]:
        return self.samples, self.ids.tolist(), self.positions.tolist()


@dataclass(frozen=True)
class Prepare:
    masking: Masking

    def __call__(self, samples: list[Sample], seed: int, epoch: int) -> Inputs:
        numbers = [sample.id for sample in samples]
        masked = mask_tokens(
            self.masking,
            Vocabulary(1000, 4, frozenset(range(5))),
            np.concatenate([sample.sequences[0] for sample in samples]),
            np.array([len(sample.sequences[0]) for sample in samples]),
            np.array(numbers),
            seed,
            epoch,
        )
        ids, positions = torch.from_numpy(masked.ids), torch.from_numpy(masked.positions)
        return Inputs(numbers, ids, positions, torch.get_num_threads(), os.getpid())


class Numbers:
    """Samples of 3 to 40 tokens, each a function of its number."""

    def __init__(self, samples: int) -> None:
        self.lengths = np.random.default_rng(0).integers(3, 41, samples)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Sample:
        ids = np.random.default_rng(number).integers(5, 1000, self.lengths[number])
        return Sample(number, (ids.astype(np.int32),))


def loader(batching: Batching, workers: int = 0, samples: int = 60, masking: Masking = ROBERTA, seed: int = 3) -> Loader[Inputs]:
    return Loader(Numbers(samples), batching, Prepare(masking), seed=seed, workers=workers)


def take(stream: Stream[Inputs], count: int) -> list[tuple[object, ...]]:
    return [inputs.key() for inputs in islice(stream, count)]


SHORT = TokenBudget(tokens=100, window=3)
BATCHINGS = [SHORT, TokenBudget(tokens=200, slots=4), SampleCount(samples=7)]


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("masking", [ROBERTA, MODERNBERT])
def test_workers_change_nothing(batching: Batching, masking: Masking) -> None:
    count = 3 * len(list(loader(batching).plan.epoch(0)))  # through three epochs
    expected = take(loader(batching, masking=masking).open(), count)
    for workers in (1, 3):
        stream = loader(batching, workers, masking=masking).open()
        first = next(stream)
        assert (first.threads, first.process != os.getpid()) == (1, True)
        assert [first.key(), *take(stream, count - 1)] == expected
        stream.close()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_stream_goes_on_from_any_state(workers: int) -> None:
    """Stopped after each of the inputs of two epochs, whatever the workers had prepared beyond it."""
    stream = loader(SHORT).open()
    states = [stream.state()]
    expected = []
    for inputs in islice(stream, 40):
        expected.append(inputs.key())
        states.append(stream.state())
    assert {state["epoch"] for state in states} >= {0, 1, 2}
    for stop in range(0, 36, 1 if workers == 0 else 7):
        ahead = loader(SHORT, workers).open(states[stop])
        assert ahead.state() == states[stop]
        assert take(ahead, 4) == expected[stop : stop + 4]
        assert ahead.state() == states[stop + 4]
        ahead.close()


@settings(max_examples=30)
@given(st.integers(1, 50), st.sampled_from(BATCHINGS), st.integers(0, 2**40), st.lists(st.integers(1, 6), max_size=5))
def test_any_chain_of_resumes_is_one_stream(samples: int, batching: Batching, seed: int, legs: list[int]) -> None:
    expected = take(loader(batching, samples=samples, seed=seed).open(), sum(legs))
    state = None
    found = []
    for leg in legs:
        stream = loader(batching, samples=samples, seed=seed).open(state)
        found += take(stream, leg)
        state = stream.state()
    assert found == expected


def test_each_epoch_holds_each_sample_once_and_masks_anew() -> None:
    stream = loader(SHORT).open()
    per_epoch: dict[int, dict[int, bytes]] = {}
    for inputs in islice(stream, 40):
        epoch = stream.state()["epoch"]
        at = 0
        for sample in inputs.samples:
            length = int(Numbers(60).lengths[sample])
            assert sample not in per_epoch.setdefault(epoch, {})
            per_epoch[epoch][sample] = inputs.ids[at : at + length].numpy().tobytes()
            at += length
    assert set(per_epoch[0]) == set(per_epoch[1]) == set(range(60))
    assert sum(per_epoch[0][i] != per_epoch[1][i] for i in range(60)) > 50


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_is_one_pass_the_same_each_time(workers: int) -> None:
    once, twice = ([inputs.key() for inputs in loader(SHORT, workers).evaluation()] for _ in range(2))
    assert once == twice == [inputs.key() for inputs in loader(SHORT).evaluation()]
    in_order = [inputs.samples for inputs in loader(SampleCount(samples=60)).evaluation()]
    assert [sorted(samples) for samples in in_order] == [list(range(60))]
    assert sorted(i for samples, *_ in once for i in samples) == list(range(60))  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generators_are_left_alone(workers: int) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(1).item(), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    take(loader(SHORT, workers).open(), 5)
    assert (torch.rand(1).item(), np.random.rand()) == expected


def test_states_of_other_plans_are_refused() -> None:
    state = loader(SHORT).open().state()
    for other in (loader(SHORT, samples=61), loader(SHORT, seed=4), loader(BATCHINGS[1])):
        with pytest.raises(InputError, match="not that of the saved position"):
            other.open(state)
    for wrong in ({}, {"epoch": 1}, {**state, "batch": -1}):
        with pytest.raises(InputError, match="not the position of a stream"):
            loader(SHORT).open(wrong)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="workers=-1"):
        loader(SHORT, workers=-1)
    with pytest.raises(InputError, match="a batch at most 10"):
        loader(TokenBudget(tokens=10))


class Broken(Numbers):
    def __getitem__(self, number: int) -> Sample:
        raise InputError(f"sample {number} is broken")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_in_a_worker_is_an_input_error_too(workers: int) -> None:
    stream = Loader(Broken(9), SHORT, Prepare(ROBERTA), seed=0, workers=workers).open()
    with pytest.raises(InputError, match=r"^sample \d is broken$"):
        next(stream)


SCRIPT = """
import sys
from test_loader import SHORT, loader
stream = loader(SHORT, workers=3).open()
pids = {next(stream).process for _ in range(12)}
print(*pids, flush=True)
sys.stdin.read()
"""


def running(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] not in "ZX"


@pytest.fixture
def process_with_workers() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process with three workers, which ends when its input does."""
    if not Path("/proc").is_dir():
        pytest.skip("no /proc to look for processes in")
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 3
        assert all(map(running, workers))
        yield process, workers
        process.kill()


def test_workers_die_with_a_killed_parent(process_with_workers: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, workers = process_with_workers
    process.kill()
    process.wait()
    until = time.monotonic() + 60
    while any(map(running, workers)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not any(map(running, workers))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_the_parent(
    process_with_workers: tuple[subprocess.Popen[str], list[int]], number: signal.Signals
) -> None:
    process, workers = process_with_workers
    for worker in workers:
        os.kill(worker, number)
    time.sleep(0.5)
    assert all(map(running, workers))
    assert process.stdin is not None
    process.stdin.close()  # its end is theirs, though their stream was never closed
    assert process.wait(timeout=60) == 0
    assert not any(map(running, workers))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(0, 30))
def test_shares_are_the_whole_stream(of: int, first: int) -> None:
    """Opened at any state: together the shares hold every input once, in order, and all stand where the whole stands."""
    whole = loader(SHORT).open()
    take(whole, first)
    start = whole.state()
    shares = [loader(SHORT).open(start, Share(place, of)) for place in range(of)]
    for number in range(30):
        expected = next(whole)
        got = [next(share) for share in shares]
        assert [one is not None for one in got] == [place == number % of for place in range(of)]
        held = got[number % of]
        assert held is not None
        assert held.key() == expected.key()
        assert all(share.state() == whole.state() for share in shares)


def test_workers_prepare_their_share_alone() -> None:
    expected = [inputs.key() for inputs in islice(loader(SHORT).open(), 12)]
    stream = loader(SHORT, workers=2).open(None, Share(1, 3))
    got = [next(stream) for _ in range(12)]
    stream.close()
    own = [inputs for inputs in got if inputs is not None]
    assert [inputs.key() for inputs in own] == expected[1::3]
    assert len({inputs.process for inputs in own}) == 2  # both of them


def test_a_share_outside_the_whole() -> None:
    with pytest.raises(ValueError, match="a place is at least 0 and below"):
        Share(2, 2)


@dataclass(frozen=True, eq=False)
class Filling(Inputs):
    """Inputs that can end in filler: their ids are brought to a number of tokens."""

    room: Capacity | None = None

    def to_capacity(self, capacity: Capacity) -> Filling:
        ids = torch.cat((self.ids, self.ids.new_zeros(capacity.tokens - len(self.ids))))
        return Filling(self.samples, ids, self.positions, self.threads, self.process, capacity)


@dataclass(frozen=True)
class PrepareFilling:
    def __call__(self, samples: list[Sample], seed: int, epoch: int) -> Filling:
        one = Prepare(ROBERTA)(samples, seed, epoch)
        return Filling(one.samples, one.ids, one.positions, one.threads, one.process)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_one_shape_hold_the_same_samples(workers: int) -> None:
    fixed = Loader(Numbers(60), SHORT, PrepareFilling(), seed=3, workers=workers, fixed=True)
    assert fixed.capacity == capacity(Numbers(60).lengths, SHORT)
    stream, plain = fixed.open(), loader(SHORT).open()
    for one, other in islice(zip(stream, plain, strict=False), 20):
        assert isinstance(one, Filling)
        assert other is not None
        assert (one.room, len(one.ids)) == (fixed.capacity, 100)
        assert (one.samples, one.positions.tolist()) == (other.samples, other.positions.tolist())
        assert one.ids[: len(other.ids)].tolist() == other.ids.tolist()
    assert stream.state() == plain.state()  # filler is no part of the plan: a run goes on with it or without
    stream.close()


def test_what_has_no_fixed_shape() -> None:
    with pytest.raises(InputError, match=r"training\.compile: Inputs cannot end in filler"):
        next(Loader(Numbers(9), SHORT, Prepare(ROBERTA), seed=0, fixed=True).open())
    with pytest.raises(InputError, match="batches of a number of samples have no fixed shape"):
        Loader(Numbers(9), SampleCount(samples=2), PrepareFilling(), seed=0, fixed=True)
