"""What the policies beside single tokens select: whole words, spans, n-grams, windows, rare tokens; per sample and per batch.

The clusters test of each fails when its policy is silently off, which is shown beside it.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pydantic
import pytest
from tests.data.packed import VOCABULARY, Text, inside, per_sequence, selected, text

from bothways.config import from_json, to_json
from bothways.data.mask_units import ByFrequency, NGrams, PerBatch, RateLine, Spans, WholeWords, Windows
from bothways.data.masking import ALBERT, BERT, DEBERTA, DEBERTA_V3, DISTILBERT, SPANBERT, Masking, check_masking, mask_tokens
from bothways.data.vocabulary import Vocabulary
from bothways.data.word_masking import drawn_lengths
from bothways.errors import InputError

WHOLE = replace(BERT, units=WholeWords())
BY_WORD = {"whole_words": WHOLE, "spans": SPANBERT, "n_grams": ALBERT, "windows": DEBERTA}
BY_FREQUENCY = replace(BERT, units=ByFrequency())


@pytest.fixture(scope="module")
def corpus() -> Text:
    """250,000 tokens in sequences of 3 to 150."""
    return text(np.random.default_rng(1).integers(3, 151, 3400).tolist())


@pytest.fixture(scope="module")
def long() -> Text:
    """400,000 tokens in long sequences, whose ends do not matter."""
    return text([20_000] * 20)


def broken_words(corpus: Text, masking: Masking) -> float:
    """Of the words of several pieces with a selected one, the share with one that is not selected."""
    words, chosen = corpus.words, selected(corpus, corpus.masked(masking))
    sizes, hit = np.bincount(words), np.bincount(words, weights=chosen)
    several = (sizes > 1) & (hit > 0)
    return float((hit < sizes)[several].mean())


def runs_of_words(corpus: Text, masking: Masking) -> np.ndarray:
    """The words of each run of selected words in a row."""
    words, chosen = corpus.words, selected(corpus, corpus.masked(masking))
    hit = np.bincount(words, weights=chosen) > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], hit.astype(int), [0]])))
    return edges[1::2] - edges[::2]


@pytest.mark.parametrize("name", BY_WORD)
def test_words_are_never_broken(corpus: Text, name: str) -> None:
    assert broken_words(corpus, BY_WORD[name]) == 0.0
    assert broken_words(corpus, replace(BY_WORD[name], units=None)) > 0.5  # the policy off


def test_whole_words_each_on_their_own_have_the_rate(corpus: Text) -> None:
    masking = Masking(rate=0.3, units=WholeWords())
    words, chosen = corpus.words, selected(corpus, corpus.masked(masking))
    ordinary = np.bincount(words, weights=corpus.ids > 4) > 0
    assert inside(int((np.bincount(words, weights=chosen) > 0).sum()), int(ordinary.sum()), 0.3)
    assert broken_words(corpus, masking) == 0.0
    assert broken_words(corpus, replace(masking, units=None)) > 0.5


def test_spans_have_the_published_length(long: Text) -> None:
    """Geometric with p 0.2, at most 10 words: 3.8 on average. Few spans meet at this rate."""
    masking = replace(SPANBERT, rate=0.02)
    runs, lengths = runs_of_words(long, masking), np.arange(1, 11)
    chances = 0.8 ** (lengths - 1) / (0.8 ** (lengths - 1)).sum()
    mean = float((lengths * chances).sum())
    deviation = np.sqrt((lengths**2 * chances).sum() - mean**2)
    assert round(mean, 1) == 3.8
    assert len(runs) > 1000
    assert abs(runs.mean() - mean) <= 3.2905 * deviation / np.sqrt(len(runs))
    assert runs_of_words(long, replace(masking, units=WholeWords())).mean() < 1.1  # the policy off
    assert runs_of_words(long, replace(masking, units=NGrams())).mean() < 2.0


def test_n_grams_have_the_published_lengths(long: Text) -> None:
    """6 to 3 to 2 (arXiv 1909.11942). Few n-grams meet at this rate."""
    masking = replace(ALBERT, rate=0.01)
    runs = runs_of_words(long, masking)
    assert len(runs) > 1000
    for length, share in ((1, 6 / 11), (2, 3 / 11), (3, 2 / 11)):
        assert inside(int((runs == length).sum()), len(runs), share)
    off = runs_of_words(long, replace(masking, units=WholeWords()))
    assert not inside(int((off == 1).sum()), len(off), 6 / 11)


@pytest.mark.parametrize("units", [NGrams(), Windows()])
def test_the_draw_of_an_n_gram_is_6_3_2(units: NGrams | Windows) -> None:
    bits = np.random.default_rng(0).integers(0, 2**64, 200_000, dtype=np.uint64)
    counts = np.bincount(drawn_lengths(units.chances, bits), minlength=4)
    assert counts[0] == 0
    for length, share in ((1, 6 / 11), (2, 3 / 11), (3, 2 / 11)):
        assert inside(int(counts[length]), 200_000, share)


def test_the_draw_of_a_span_is_geometric() -> None:
    bits = np.random.default_rng(0).integers(0, 2**64, 200_000, dtype=np.uint64)
    counts = np.bincount(drawn_lengths(Spans().chances, bits), minlength=11)
    raw = 0.2 * 0.8 ** np.arange(10)
    for length in range(1, 11):
        assert inside(int(counts[length]), 200_000, raw[length - 1] / raw.sum())


def test_windows_have_an_n_gram_each_and_leave_the_end(long: Text) -> None:
    """One word of six is more than 15 %: the count is reached before the end, as in the published code."""
    masked = long.masked(DEBERTA_V3)
    starts = np.cumsum(long.lengths) - long.lengths
    places = masked.positions - starts[long.sequences[masked.positions]]
    assert (per_sequence(long, masked) == 3000).all()
    first = np.sort(places[places < 17_000].reshape(-1)).tolist()  # [CLS] stands before the first window
    for sequence in range(20):
        here = places[long.sequences[masked.positions] == sequence]
        assert np.array_equal((here - 1) // 6, np.arange(3000)), "one token in each window of six, until 15 % are selected"
    assert max(first) < 17_000
    assert places.max() <= 18_000
    # spread over the places of a window
    for place in range(6):
        assert inside(int(((places - 1) % 6 == place).sum()), len(places), 1 / 6)
    assert runs_of_words(long, DEBERTA).mean() > 1.4 > runs_of_words(long, replace(DEBERTA, units=Windows(longest=1))).mean()


@pytest.mark.parametrize("masking", [WHOLE, SPANBERT, ALBERT, BY_FREQUENCY], ids=lambda one: one.units.type)
def test_counts_are_exact(corpus: Text, masking: Masking) -> None:
    """In pieces, as BERT's code counts; in a short text there may be no word, or no span, that fits."""
    counts = per_sequence(corpus, corpus.masked(masking))
    wanted = np.maximum(np.rint(0.15 * corpus.lengths), 1)
    wanted = np.minimum(wanted, corpus.lengths - 2)
    assert (counts <= wanted).all()
    enough = corpus.lengths > 80
    np.testing.assert_array_equal(counts[enough], wanted[enough])
    assert (counts == wanted).mean() > 0.95
    assert (corpus.ids[corpus.masked(masking).positions] > 4).all()


@pytest.mark.parametrize("units", [WholeWords(), Spans(), NGrams()])
def test_counts_rounded_at_random(corpus: Text, units: WholeWords | Spans | NGrams) -> None:
    counts = per_sequence(corpus, corpus.masked(Masking(rate=0.15, count="stochastic", units=units)))
    long = corpus.lengths > 80
    exact = (0.15 * corpus.lengths)[long]
    excess = counts[long] - np.floor(exact)
    assert set(excess.tolist()) == {0.0, 1.0}
    up = exact - np.floor(exact)
    assert abs(excess.sum() - up.sum()) <= 3.2905 * np.sqrt((up * (1 - up)).sum())


def test_at_most(corpus: Text) -> None:
    masked = corpus.masked(replace(BERT, at_most=7))
    wanted = np.minimum(np.clip(np.rint(0.15 * corpus.lengths), 1, 7), corpus.lengths - 2)
    np.testing.assert_array_equal(per_sequence(corpus, masked), wanted)


def fates(corpus: Text, masking: Masking) -> tuple[np.ndarray, np.ndarray]:
    """The run in which each selected token stands, and what became of it: hidden 0, replaced 1, kept 2."""
    masked = corpus.masked(masking)
    after = masked.ids[masked.positions]
    runs = np.cumsum(np.diff(masked.positions, prepend=-2) > 1) - 1
    return runs, np.where(after == 4, 0, np.where(after == masked.labels, 2, 1))


@pytest.mark.parametrize("units", [WholeWords(replaced="together"), Spans(), NGrams(replaced="together")])
def test_what_is_selected_together_shares_its_fate(long: Text, units: WholeWords | Spans | NGrams) -> None:
    together, each = (replace(BERT, rate=0.02, units=replace(units, replaced=one)) for one in ("together", "each_piece"))

    def mixed(masking: Masking) -> float:
        runs, fate = fates(long, masking)
        sizes = np.bincount(runs)
        unlike = np.bincount(runs, weights=fate != fate[np.searchsorted(runs, runs)]) > 0
        return float(unlike[sizes > 1].mean())

    # two that touch by chance are one run; a random token is the old one once in a thousand
    assert mixed(together) < 0.05
    assert mixed(each) > 0.3
    runs, fate = fates(long, together)
    firsts = fate[np.searchsorted(runs, np.arange(runs[-1] + 1))]
    for kind, share in enumerate((0.8, 0.1, 0.1)):
        assert inside(int((firsts == kind).sum()), len(firsts), share)
    replaced = fate == 1
    ids = long.masked(together).ids[long.masked(together).positions][replaced]
    assert len(np.unique(ids)) > 0.3 * min(len(ids), 1000), "each piece has a random token of its own"


def test_rare_tokens_are_selected_as_often_more_as_published(long: Text) -> None:
    """Of even ids there are 10, of odd ones 1,000: 100 ** 0.7 times the chance (25.1), where hardly any are used up."""
    rare = (long.ids % 2 == 0) & (long.ids > 4)
    ordinary = int((long.ids > 4).sum())
    ratio = 100**0.7
    for masking in (replace(BY_FREQUENCY, rate=0.001), replace(DISTILBERT, rate=0.001)):
        masked = long.masked(masking)
        expected = rare.sum() * ratio / (rare.sum() * ratio + ordinary - rare.sum())
        assert inside(int(rare[masked.positions].sum()), len(masked.positions), expected)
    even = long.masked(replace(BY_FREQUENCY, rate=0.001, units=ByFrequency(power=0.0)))
    assert inside(int(rare[even.positions].sum()), len(even.positions), rare.sum() / ordinary)


def test_the_marginal_rate_by_frequency_is_that_of_the_published_form(corpus: Text) -> None:
    ours = corpus.masked(Masking(rate=0.15, count="stochastic", units=ByFrequency()))
    theirs = corpus.masked(DISTILBERT)
    assert len(theirs.positions) == np.ceil(0.15 * len(corpus.ids))
    assert abs(len(ours.positions) - len(theirs.positions)) <= 3.2905 * np.sqrt(len(corpus.lengths) / 4)
    assert (per_sequence(corpus, theirs) != per_sequence(corpus, ours)).mean() > 0.5, "drawn from the whole batch"


@pytest.mark.parametrize("units", [None, WholeWords(), Spans(), NGrams(), ByFrequency()])
def test_rows_of_a_batch_are_fixed(units: WholeWords | Spans | NGrams | ByFrequency | None) -> None:
    masking = Masking(rate=0.15, count=PerBatch(rows=77), units=units)
    for seed in range(5):
        batch = text(np.random.default_rng(seed).integers(30, 150, 8).tolist(), list(range(10 * seed, 10 * seed + 8)))
        masked = batch.masked(masking, seed)
        assert len(masked.positions) == 77
        assert (batch.ids[masked.positions] > 4).all()
        np.testing.assert_array_equal(masked.positions, batch.masked(masking, seed).positions)
        assert masked.positions.tolist() != batch.masked(masking, seed, epoch=1).positions.tolist()
    short = text([12, 9])
    assert len(short.masked(masking).positions) <= 17
    assert len(short.masked(replace(masking, units=None)).positions) == 17


def test_static_masks_come_again(corpus: Text) -> None:
    masking = replace(WHOLE, copies=3)
    masks = [corpus.masked(masking, epoch=epoch) for epoch in range(7)]
    for epoch in range(7):
        assert np.array_equal(masks[epoch].ids, masks[epoch % 3].ids)
        assert epoch < 1 or not np.array_equal(masks[epoch].positions, masks[epoch - 1].positions)
    np.testing.assert_array_equal(masks[2].ids, corpus.masked(WHOLE, epoch=2).ids)
    batch = text([40, 40])
    by_sample = masked_in(batch, masking, np.array([1, 5]))
    np.testing.assert_array_equal(by_sample, masked_in(batch, masking, np.array([4, 2])))


def masked_in(batch: Text, masking: Masking, epochs: np.ndarray) -> np.ndarray:
    return mask_tokens(masking, VOCABULARY, batch.ids, batch.lengths, batch.samples, 0, epochs).positions


@pytest.mark.parametrize("units", [WholeWords(), Spans(), Spans(p=0.5, longest=4), NGrams(), NGrams(longest=5)])
@pytest.mark.parametrize("rate", [0.05, 0.15, 0.5])
def test_the_same_as_word_after_word(units: WholeWords | Spans | NGrams, rate: float) -> None:
    """What follows from all times at once is what the published loops select, one word after the other."""
    batch = text(np.random.default_rng(7).integers(3, 200, 60).tolist())
    masking = Masking(rate=rate, count="rounded", units=units)
    assert batch.masked(masking, seed=3).positions.tolist() == one_by_one(batch, masking, seed=3)


def one_by_one(batch: Text, masking: Masking, seed: int) -> list[int]:
    """The same draws, used as the published codes use theirs."""
    from bothways.data.hashing import draw, keys, uniform

    chosen: list[int] = []
    start = 0
    for length, sample in zip(batch.lengths.tolist(), batch.samples.tolist(), strict=True):
        owner = keys(seed, 0, items=np.array([sample]))
        pieces: list[list[int]] = []
        for place in range(1, length - 1):
            if place == 1 or batch.ids[start + place] < 600:
                pieces.append([])
            pieces[-1].append(place)
        firsts = np.array([word[0] for word in pieces])
        sizes = np.array([len(word) for word in pieces])
        times = uniform(draw(np.repeat(owner, len(firsts)), 4 * firsts))
        units = masking.units
        if isinstance(units, Spans):
            times = -np.log1p(-times) / sizes
        counts = np.ones(len(firsts), int)
        if isinstance(units, Spans | NGrams):
            counts = drawn_lengths(units.chances, draw(np.repeat(owner, len(firsts)), -1 - firsts))
        wanted = max(round(masking.rate * length), 1)
        covered: set[int] = set()  # by spans and n-grams, whether there was room or not
        taken: set[int] = set()
        for anchor in np.argsort(times).tolist():
            words = range(anchor, min(anchor + counts[anchor], len(pieces)))
            if anchor in covered or (isinstance(units, NGrams) and covered & set(words)):
                continue
            for word in words:
                if word in covered:
                    continue
                if sum(len(pieces[one]) for one in taken) + len(pieces[word]) > wanted:
                    break
                taken.add(word)
            covered |= set(words)
        chosen += sorted(start + place for word in taken for place in pieces[word])
        start += length
    return chosen


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"units": Spans()}, "units spans fill a number of tokens"),
        ({"units": ByFrequency(), "count": "rounded", "specials": "like_any_token"}, "special tokens have no frequency"),
        ({"units": Windows(), "count": PerBatch()}, "follow each other in a sample"),
        ({"at_most": 4}, "at_most is of a sample's count"),
        ({"copies": 2, "count": PerBatch()}, "without count per batch"),
        ({"copies": 2, "schedule": RateLine(to=0.1)}, "without a schedule"),
        ({"count": PerBatch(rows=8), "schedule": RateLine(to=0.1)}, "the same in every batch"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        Masking(**fields)  # type: ignore[arg-type]


def test_what_is_not_known_of_a_vocabulary_is_asked_for() -> None:
    bare = Vocabulary(1000, 4, frozenset(range(5)))
    for masking in (BERT, DEBERTA_V3):  # of single tokens
        check_masking(masking, bare)
        assert len(mask_tokens(masking, bare, np.arange(5, 105), np.array([100]), np.array([0]), 0, 0).positions) == 15
    for masking in BY_WORD.values():
        with pytest.raises(InputError, match=r"masking\.units: the pieces of this tokenizer do not say where words begin"):
            check_masking(masking, bare)
    with pytest.raises(InputError, match="how often each token occurs"):
        check_masking(DISTILBERT, bare)


@pytest.mark.parametrize("masking", [*BY_WORD.values(), DISTILBERT, DEBERTA_V3, replace(BERT, schedule=RateLine(to=0.1))])
def test_masking_as_json(masking: Masking) -> None:
    assert from_json(Masking, to_json(masking), "here") == masking


def test_masking_of_older_runs_is_read() -> None:
    older = '{"rate": 0.15, "mask": 0.8, "random": 0.1, "count": "rounded", "specials": "never", "random_ids": "any"}'
    assert from_json(Masking, older, "run.json") == BERT
    new = {name: value for name, value in json.loads(to_json(BERT)).items() if name not in json.loads(older)}
    assert set(new.values()) == {None}, "what an older record lacks is null, so that its run can go on"
