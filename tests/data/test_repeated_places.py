"""Places that are drawn with replacement: how many, how often the same, and what they show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from bothways.data.mask_units import PerBatch, WholeWords
from bothways.data.masking import ELECTRA, Masked, Masking, mask_tokens
from bothways.data.vocabulary import Vocabulary
from bothways.errors import InputError

MASK = 4
VOCABULARY = Vocabulary(1000, MASK, frozenset(range(5)))
REPEATED = replace(ELECTRA, repeats="allowed")


def masked(lengths: list[int], samples: list[int], masking: Masking = REPEATED, epoch: int = 0) -> tuple[np.ndarray, Masked]:
    """Sequences between two special tokens; a sample's text is a function of its number."""
    rows = []
    for length, number in zip(lengths, samples, strict=True):
        row = np.random.default_rng(number).integers(5, 1000, length)
        row[[0, -1]] = 1, 2
        rows.append(row)
    ids = np.concatenate(rows)
    return ids, mask_tokens(masking, VOCABULARY, ids, np.array(lengths), np.array(samples), 0, epoch)


def test_as_many_draws_as_published_some_of_them_twice() -> None:
    """19 draws of 126 places (arXiv 2003.10555's code): 126 * (1 - (125/126)^19) = 17.7 different ones are to be expected."""
    count = 2000
    ids, found = masked([128] * count, list(range(count)))
    owners = found.positions // 128
    assert (np.bincount(owners) == 19).all()
    assert (np.diff(found.positions) >= 0).all()
    different = np.array([len(np.unique(found.positions[owners == i])) for i in range(count)])
    assert different.max() == 19 > different.min()
    expected = 126 * (1 - (125 / 126) ** 19)
    assert abs(different.mean() - expected) < 4 * different.std() / count**0.5
    assert (found.labels == ids[found.positions]).all()
    places = np.bincount(found.positions % 128, minlength=128)
    assert places[[0, -1]].sum() == 0
    assert places[1:-1].min() > 0.7 * places[1:-1].mean()


def test_each_draw_says_whether_its_place_is_masked() -> None:
    """85 of 100 draws mask; a place stays as it is if none of its draws does: 15 % of those drawn once, 2.25 % of those twice."""
    count = 4000
    ids, found = masked([128] * count, list(range(count)))
    times = np.bincount(found.positions, minlength=len(ids))
    assert (found.ids[times == 0] == ids[times == 0]).all()
    shown = found.ids == ids
    for drawn, expected in ((1, 0.15), (2, 0.0225)):
        some = times == drawn
        share, error = shown[some].mean(), (expected * (1 - expected) / some.sum()) ** 0.5
        assert abs(share - expected) < 4 * error
    assert (found.ids[~shown] == MASK).all()


def test_packed_is_alone() -> None:
    lengths, samples = [40, 3, 128, 17, 2], [7, 1, 3, 9, 4]
    _, together = masked(lengths, samples)
    begin, positions, corrupted = 0, [], []
    for length, sample in zip(lengths, samples, strict=True):
        _, alone = masked([length], [sample])
        positions += (alone.positions + begin).tolist()
        corrupted += alone.ids.tolist()
        begin += length
    assert together.positions.tolist() == positions  # of two special tokens alone, none
    assert together.ids.tolist() == corrupted


def test_another_epoch_draws_anew_and_without_the_option_nothing_repeats() -> None:
    first, second = masked([128], [3])[1], masked([128], [3], epoch=1)[1]
    assert first.positions.tolist() != second.positions.tolist()
    _, once = masked([128] * 50, list(range(50)), ELECTRA)
    assert (np.diff(once.positions) > 0).all()


@pytest.mark.parametrize("change", [{"count": "per_token"}, {"count": PerBatch()}, {"units": WholeWords()}])
def test_what_it_does_not_go_with(change: dict[str, object]) -> None:
    with pytest.raises((InputError, ValidationError), match="repeats are drawn token by token"):
        replace(REPEATED, **change)  # type: ignore[arg-type]
