"""Which documents meet, which are alike, which one of a group stays."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.curation.corpus import edited, prose

from bothways.data.curation.duplicates import ExactDuplicates, NearDuplicates, band_keys, shingles
from bothways.data.curation.matching import firsts, join, match_band, meet, read_drops
from bothways.data.curation.store import Item, Signatures, Signed


def test_shingles() -> None:
    assert shingles("One, two -- THREE four.", 3) == ["one two three", "two three four"]
    assert shingles("a b a b a b", 2) == ["a b", "b a"], "each once"
    assert shingles("Short.", 5) == ["short"]
    assert shingles(" ... ", 5) == []
    assert shingles("我们爱海", 3) == ["我 们 爱", "们 爱 海"], "no spaces between words: characters"


def test_an_exact_signature_knows_no_white_space() -> None:
    sign = ExactDuplicates().open(0)
    first, second, third = (sign(text) for text in ("a  b\nc", "a b c ", "a b C"))
    assert (first == second).all()
    assert not (first == third).all()


def test_band_keys_are_equal_where_bands_are() -> None:
    rows = np.random.default_rng(0).integers(0, 1 << 32, (5, 12), dtype=np.uint32)
    rows[1, :4] = rows[0, :4]  # the first of three bands
    rows[2] = rows[0]
    rows[3, :4] = rows[0, [1, 0, 2, 3]]  # the same hashes in another order are another band
    keys = band_keys(rows, 3)
    assert (keys[0] == keys[1]).tolist() == [True, False, False]
    assert (keys[0] == keys[2]).all()
    assert not (keys[0] == keys[3]).any()


def test_meet_finds_what_shares_a_key() -> None:
    keys = np.array([7, 9, 7, 7, 8, 9], np.uint64)
    met = meet(keys, np.arange(6) + 100)
    groups = {}
    for row, number in met.tolist():
        groups.setdefault(number, set()).add(row)
    assert sorted(map(sorted, groups.values())) == [[100, 102, 103], [101, 105]]
    assert len(meet(np.zeros(0, np.uint64), np.zeros(0, np.int64))) == 0


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=9),
    st.permutations(range(9)),
    st.sampled_from([0.5, 0.75, 1.0]),
)
def test_one_goes_only_if_one_that_stays_is_alike(rows: list[list[int]], orders: list[int], similarity: float) -> None:
    """Four hashes, each a band of its own: against the definition, which compares each with all that stay."""
    signed = Signed(np.array(rows, np.uint32), np.array(orders[: len(rows)], np.uint64), tuple(map(str, range(len(rows)))))
    meetings = [(row, 3 * band + value) for row, values in enumerate(rows) for band, value in enumerate(values)]
    found = firsts(signed, np.array(meetings), similarity)
    expected = {}
    for one in sorted(range(len(rows)), key=lambda one: orders[one]):
        staying = [other for other in expected if expected[other] == other]
        agree = {other: sum(a == b for a, b in zip(rows[one], rows[other], strict=True)) / 4 for other in staying}
        best = max(staying, key=lambda other: (agree[other], -orders[other]), default=one)
        expected[one] = best if agree.get(best, 0) >= similarity else one
    assert found.tolist() == [expected[one] for one in range(len(rows))]


def test_a_chain_of_copies_ends_where_they_are_no_copies_any_more() -> None:
    """B is like A, C like B but not like A: B goes, A and C stay."""
    rows = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 2, 2], [1, 2, 2, 2, 2]], np.uint32)
    meetings = np.array([(row, 0) for row in range(3)])
    found = firsts(Signed(rows, np.arange(3, dtype=np.uint64), ("a", "b", "c")), meetings, 0.6)
    assert found.tolist() == [0, 0, 2]


def test_where_nothing_meets_nothing_goes() -> None:
    signed = Signed(np.zeros((0, 1), np.uint32), np.zeros(0, np.uint64), ())
    assert firsts(signed, np.zeros((0, 2), np.int64), 0.6).tolist() == []


def test_estimates_are_near_the_true_similarity() -> None:
    """The signatures of rensa estimate the Jaccard similarity of the sets of runs."""
    pytest.importorskip("rensa", reason="pip install 'bothways[data]'")
    step = NearDuplicates(bands=32, rows=8)
    sign = step.open(3)
    base = prose(0, 400)
    for share in (0.01, 0.03, 0.1):
        other = edited(base, 1, share)
        left, right = set(shingles(base, step.words)), set(shingles(other, step.words))
        first, second = sign(base), sign(other)
        assert first is not None
        assert second is not None
        true = len(left & right) / len(left | right)
        assert abs(float((first == second).mean()) - true) < 4 * (true * (1 - true) / 256) ** 0.5 + 0.01


def test_files_of_any_cut_give_the_same_drops(tmp_path: Path) -> None:
    """Nine documents, in one part and in four, with orders that do not follow the rows."""
    pytest.importorskip("rensa", reason="pip install 'bothways[data]'")
    step = NearDuplicates()
    sign = step.open(0)
    texts = {number: prose(number) for number in (10, 11, 12, 13)}
    texts |= {3: edited(texts[11], 0), 20: edited(texts[11], 5), 21: texts[13], 22: "...", 23: "..."}
    found = []
    for name, cut in (("one", [list(texts)]), ("four", [[22, 10, 3], [], [23, 20, 11], [12, 13, 21]])):
        files = []
        for part, orders in enumerate(cut):
            signatures = Signatures(step.hashes, step.bands)
            for order in orders:
                signatures.add(Item(texts[order], f"at {order}", order), sign(texts[order]))
            files.append(tmp_path / name / f"{part}.parquet")
            signatures.write(files[-1])
        bands = [tmp_path / name / f"{band}.npy" for band in range(step.bands)]
        for band, file in enumerate(bands):
            match_band(files, band, file)
        join(files, bands, step.similarity, tmp_path / name)
        drops = {}
        for part, orders in enumerate(cut):
            drops |= {orders[row]: where for row, where in read_drops(tmp_path / name / f"{part:06d}.json").items()}
        found.append(drops)
    assert found[0] == found[1] == {11: "at 3", 20: "at 3", 21: "at 13"}


def test_unlike_documents_do_not_meet() -> None:
    texts = [prose(seed) for seed in range(20)]
    for a, b in combinations(texts, 2):
        left, right = set(shingles(a, 5)), set(shingles(b, 5))
        assert len(left & right) / len(left | right) < 0.2
