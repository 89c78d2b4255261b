"""A mask rate that moves: by the tokens of the stream alone, whoever prepares its inputs and wherever it is taken up."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from bothways.data.loader import Loader, Share, Stream
from bothways.data.mask_units import RateLine, WholeWords
from bothways.data.masking import BERT, Masking
from bothways.data.mixture import Joined, mixed
from bothways.data.order import Order
from bothways.data.packing import TokenBudget
from bothways.data.sample import Sample
from bothways.data.vocabulary import Vocabulary, WordTable
from bothways.errors import InputError
from bothways.objectives.combine import PrepareCombined
from bothways.objectives.masked_lm import MaskedInputs, PrepareMasked

# three workers are more than a small machine has cores: torch advises against it, the sequence must not care
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")

VOCABULARY = Vocabulary(1000, 4, frozenset(range(5)), WordTable.single(1000))
BATCHING = TokenBudget(tokens=400, window=3)
FALLING = Masking(rate=0.8, schedule=RateLine(to=0.2, tokens=10_000))


class Numbers:
    """Samples of 3 to 40 tokens, each a function of its number; none is special."""

    def __init__(self, samples: int) -> None:
        self.lengths = np.random.default_rng(0).integers(3, 41, samples)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Sample:
        ids = np.random.default_rng(number).integers(5, 1000, self.lengths[number])
        return Sample(number, (ids.astype(np.int32),))


def loader(masking: Masking = FALLING, workers: int = 0, order: Order | None = None) -> Loader[MaskedInputs]:
    data = Numbers(200)
    return Loader(data, BATCHING, PrepareMasked(masking, VOCABULARY), seed=3, workers=workers, order=order)


def key(inputs: MaskedInputs) -> tuple[object, ...]:
    return inputs.batch.samples, inputs.batch.ids.tolist(), inputs.rows.tolist()


def taken(stream: Stream[MaskedInputs], count: int) -> list[tuple[object, ...]]:
    return [key(inputs) for inputs in islice(stream, count) if inputs is not None]


def test_the_rate_is_that_of_the_tokens_before() -> None:
    before = 0
    rates = []
    for inputs in islice(loader().open(), 60):
        assert inputs is not None
        done = min(before / 10_000, 1)
        rate = (1 - done) * 0.8 + done * 0.2
        rates.append(rate)
        at_rate = PrepareMasked(Masking(rate=rate), VOCABULARY)
        epoch = before // int(Numbers(200).lengths.sum())
        samples = [Numbers(200)[number] for number in inputs.batch.samples]
        assert key(at_rate(samples, 3, epoch)) == key(inputs)
        before += inputs.tokens
    assert rates[0] == 0.8
    assert rates[-1] == 0.2
    assert 0.4 < rates[len(rates) // 4] < 0.7


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(workers: int) -> None:
    expected = taken(loader().open(), 60)
    stream = loader(workers=workers).open()
    assert taken(stream, 60) == expected
    stream.close()


@pytest.mark.parametrize("mixture", [False, True])
def test_it_goes_on_from_any_state(mixture: bool) -> None:
    """Within a window, at its end, and in another epoch; of a mixture too."""

    def opened(state: dict[str, int] | None = None) -> Stream[MaskedInputs]:
        if not mixture:
            return loader().open(state)
        parts = [Numbers(200), Numbers(50)]
        prepare = PrepareMasked(FALLING, VOCABULARY)
        return Loader(Joined(parts), BATCHING, prepare, seed=3, order=mixed(parts, (1.0, 1.0), BATCHING)).open(state)

    stream, states, expected = opened(), [], []
    for inputs in islice(stream, 45):
        assert inputs is not None
        states.append(stream.state())
        expected.append(key(inputs))
    assert states[-1]["epoch"] >= (0 if mixture else 2)
    for stop in range(0, 40, 3):
        assert taken(opened(states[stop]), 4) == expected[stop + 1 : stop + 5]


def test_processes_share_the_same_inputs() -> None:
    expected = taken(loader().open(), 40)
    assert taken(loader().open(share=Share(1, 2)), 40) == expected[1::2]


def test_a_stage_counts_from_where_it_began() -> None:
    stream = loader().open()
    taken(stream, 20)
    state = stream.state()
    here = loader()
    tokens = here.tokens_before(state)
    assert tokens == sum(len(row[1]) for row in taken(loader().open(), 20))  # type: ignore[arg-type]
    first = next(here.open(state, origin=tokens))
    assert first is not None
    assert abs(len(first.rows) / first.tokens - 0.8) < 0.1
    last = next(here.open(state))
    assert last is not None
    assert len(last.rows) / last.tokens < 0.5


def test_evaluation_has_the_first_rate_and_measured_text_its_own() -> None:
    (inputs, *_) = loader(replace(FALLING, count="rounded")).evaluation()
    assert abs(len(inputs.rows) / inputs.tokens - 0.8) < 0.05
    assert FALLING.measured(None) == Masking(rate=0.8)
    assert FALLING.measured(0.15) == Masking(rate=0.15)
    assert replace(BERT, units=WholeWords()).measured(0.3) == replace(BERT, rate=0.3, units=WholeWords())


def test_who_does_not_know_the_place_in_the_stream_is_refused() -> None:
    """An objective that only holds a masking must not take its first rate for all."""
    with pytest.raises(InputError, match=r"masking\.schedule: a rate that moves goes with masked language modelling alone"):
        PrepareMasked(FALLING, VOCABULARY)([Numbers(1)[0]], 0, 0)
    combined = PrepareCombined({"masked": PrepareMasked(FALLING, VOCABULARY)})
    with pytest.raises(InputError, match=r"masking\.schedule"):
        next(Loader(Numbers(20), BATCHING, combined, seed=3).open())


def test_the_rate_in_words() -> None:
    assert (BERT.rates, FALLING.rates) == ("15%", "80% to 20%")
