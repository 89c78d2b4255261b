"""Length warm-up: every token once a pass whatever the limits, and the same stream for any workers and resumes."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.config import from_json
from bothways.data.loader import Loader
from bothways.data.mixture import Joined, Mixed
from bothways.data.order import Shuffled
from bothways.data.packing import Plan, TokenBudget
from bothways.data.sample import Epochs, Sample
from bothways.data.shard_writer import write_shards
from bothways.data.shards import Shards
from bothways.data.source import Document
from bothways.data.token_data import TokenData
from bothways.data.tokenizer import Tokenizer
from bothways.data.warmup import LengthStage, LengthWarmup, Shortened, growing
from bothways.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def warmup(*stages: tuple[int, int]) -> LengthWarmup:
    return LengthWarmup(stages=tuple(LengthStage(max_length=length, tokens=tokens) for length, tokens in stages))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, letters: Tokenizer) -> TokenData:
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(list(ALPHABET), draw.integers(1, 60))) for _ in range(50)]
    folder = tmp_path_factory.mktemp("data") / "tokens"
    write_shards((Document(text, "") for text in texts), letters, folder)
    return TokenData(Shards(folder, letters), letters, max_length=34)


def content(data: Shortened, number: int) -> list[int]:
    ids = data[number].sequences[0].tolist()
    assert (ids[0], ids[-1], len(ids), data[number].id) == (2, 3, data.lengths[number], number)
    return ids[1:-1]


def test_pieces_are_the_whole_in_order(data: TokenData, letters: Tokenizer) -> None:
    shortened = Shortened(data, letters, (6, 18))
    np.testing.assert_array_equal(shortened.lengths[: len(data)], data.lengths)
    for limit, length in enumerate((6, 18)):
        for unit in range(len(data)):
            (first,), (count,) = shortened.pieces(limit, np.array([unit]))
            pieces = [content(shortened, number) for number in range(first, first + count)]
            assert [i for piece in pieces for i in piece] == data[unit].sequences[0][1:-1].tolist()
            assert all(len(piece) == length - 2 for piece in pieces[:-1])
            assert shortened.whole(np.arange(first, first + count)).tolist() == [unit] * count


@settings(max_examples=30)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**40), st.integers(0, 4))
def test_each_pass_takes_each_token_once(
    data: TokenData, letters: Tokenizer, first: int, second: int, seed: int, epoch: int
) -> None:
    lengths = np.asarray(data.lengths)
    shortened, order = growing(warmup((6, first), (18, second)), Shuffled(lengths), data, letters)
    drawn = order.draw(seed, epoch)
    whole = shortened.whole(drawn.samples)
    plain = Shuffled(lengths).draw(seed, epoch).samples
    assert whole[np.insert(np.diff(whole) != 0, 0, True)].tolist() == plain.tolist()  # the same order of the same text
    assert (shortened.lengths[drawn.samples] - 2).sum() == (lengths - 2).sum()
    assert len(set(drawn.samples.tolist())) == len(drawn)
    # the limit in force is that of the tokens before, as samples of the final length have them
    before = epoch * int(lengths.sum()) + np.cumsum(lengths[plain]) - lengths[plain]
    limits = dict(zip(plain.tolist(), np.where(before < first, 6, np.where(before < first + second, 18, 34)), strict=True))
    for number, unit in zip(drawn.samples.tolist(), whole.tolist(), strict=True):
        assert shortened.lengths[number] == min(limits[unit], lengths[unit]) or content(shortened, number)[-1:] == (
            data[unit].sequences[0][-2:-1].tolist()
        )
        assert shortened.lengths[number] <= limits[unit]


def test_past_the_last_stage_it_is_the_plain_order(data: TokenData, letters: Tokenizer) -> None:
    _, order = growing(warmup((6, 10)), Shuffled(np.asarray(data.lengths)), data, letters)
    np.testing.assert_array_equal(order.draw(1, 1).samples, Shuffled(np.asarray(data.lengths)).draw(1, 1).samples)
    assert len(order.draw(None, 0)) == len(data)  # evaluation is at the full length


def test_limits_grow_inside_a_mixture(data: TokenData, letters: Tokenizer) -> None:
    lengths = np.asarray(data.lengths)
    shortened, order = growing(warmup((6, 2000)), Mixed((lengths, lengths), (0.9, 0.1)), Joined([data, data]), letters)
    drawn = [order.draw(0, epoch) for epoch in range(4)]
    numbers = np.concatenate([one.samples for one in drawn])
    base = [order.order.draw(0, epoch).samples for epoch in range(4)]
    whole = shortened.whole(numbers)
    assert whole[np.insert(np.diff(whole) != 0, 0, True)].tolist() == np.concatenate(base).tolist()
    limit = shortened.lengths[numbers] > 6
    assert not limit[: len(limit) // 10].any()
    assert limit[-20:].any()
    assert len(drawn[0]) == len(drawn[0].epochs)  # type: ignore[arg-type]


def prepare(samples: list[Sample], seed: int, epoch: Epochs) -> list[tuple[int, tuple[int, ...]]]:
    return [(sample.id, tuple(sample.sequences[0].tolist())) for sample in samples]


def test_workers_and_resumes_change_nothing(data: TokenData, letters: Tokenizer) -> None:
    shortened, order = growing(warmup((6, 900), (18, 1200)), Shuffled(np.asarray(data.lengths)), data, letters)

    def loader(workers: int = 0) -> Loader[list[tuple[int, tuple[int, ...]]]]:
        return Loader(shortened, TokenBudget(tokens=68, window=3), prepare, 7, workers, order)

    stream = loader().open()
    states, expected = [stream.state()], []
    for inputs in islice(stream, 70):
        expected.append(inputs)
        states.append(stream.state())
    assert {max(len(ids) for _, ids in inputs) for inputs in expected} >= {6, 18, 34}
    stream = loader(3).open()
    assert list(islice(stream, 70)) == expected
    stream.close()
    for stop in range(0, 66, 5):
        assert list(islice(loader().open(states[stop]), 4)) == expected[stop : stop + 4]
    plain = Loader(shortened, TokenBudget(tokens=68, window=3), prepare, 7)
    with pytest.raises(InputError, match="not that of the saved position"):
        plain.open(states[3])


def test_another_warmup_is_another_plan(data: TokenData, letters: Tokenizer) -> None:
    def fingerprint(*stages: tuple[int, int]) -> int:
        shortened, order = growing(warmup(*stages), Shuffled(np.asarray(data.lengths)), data, letters)
        return Plan(shortened.lengths, TokenBudget(tokens=68), 7, order).fingerprint

    assert len({fingerprint((6, 900)), fingerprint((6, 901)), fingerprint((7, 900)), fingerprint((6, 900), (18, 1))}) == 4


def test_bad_limits_are_refused(data: TokenData, letters: Tokenizer) -> None:
    with pytest.raises(InputError, match="18 after 18; limits must grow"):
        from_json(LengthWarmup, '{"stages": [{"max_length": 18, "tokens": 1}, {"max_length": 18, "tokens": 1}]}', "here")
    with pytest.raises(InputError, match="a limit of 2 leaves no room beside 2 special tokens"):
        Shortened(data, letters, (2,))


def test_limits_over_every_sample_change_no_length(data: TokenData, letters: Tokenizer) -> None:
    lengths = np.asarray(data.lengths)
    shortened, order = growing(warmup((400, 10**9)), Shuffled(lengths), data, letters)
    np.testing.assert_array_equal(shortened.lengths[order.draw(0, 0).samples], lengths[Shuffled(lengths).draw(0, 0).samples])
