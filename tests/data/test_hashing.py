"""The hash behind masks and splits."""

from __future__ import annotations

import numpy as np

from bothways.data.hashing import below, draw, keys, uniform


def test_draws_are_splitmix64() -> None:
    """The generator's published first outputs for the seed 1234567."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    key = np.array([1234567], np.uint64)
    assert [int(draw(key, index)[0]) for index in range(5)] == expected
    np.testing.assert_array_equal(draw(np.repeat(key, 5), np.arange(5)), np.array(expected, np.uint64))


def test_uniform_and_below_stay_in_range() -> None:
    ends = np.array([0, 2**64 - 1], np.uint64)
    assert uniform(ends).tolist() == [0.0, 1.0 - 2.0**-53]
    assert below(ends, 30522).tolist() == [0, 30521]


def test_keys_tell_parts_and_items_apart() -> None:
    items = np.arange(1000)
    found = np.concatenate([keys(seed, epoch, items=items) for seed in (0, 1, -1) for epoch in (0, 1, 2)])
    assert len(np.unique(found)) == 9000
    assert keys(1, 2, items=items[:1]) != keys(2, 1, items=items[:1])
