"""Masking: the published recipes' statistics, and masks that depend on nothing but seed, epoch and sample."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.packed import VOCABULARY, Text, inside, per_sequence, text

from bothways.data.mask_units import ByFrequency, NGrams, Spans, WholeWords, Windows
from bothways.data.masking import (
    ALBERT,
    BERT,
    DEBERTA,
    DEBERTA_V3,
    ELECTRA,
    MODERNBERT,
    NEOBERT,
    ROBERTA,
    SPANBERT,
    Masking,
    mask_tokens,
)
from bothways.data.vocabulary import Vocabulary
from bothways.errors import InputError

PRESETS = {
    "bert": BERT,
    "roberta": ROBERTA,
    "modernbert": MODERNBERT,
    "neobert": NEOBERT,
    "electra": ELECTRA,
    "albert": ALBERT,
    "deberta": DEBERTA,
    "deberta_v3": DEBERTA_V3,
    "whole_words": replace(BERT, units=WholeWords()),
    "by_frequency": replace(BERT, units=ByFrequency()),
    "spans_by_piece": replace(BERT, units=Spans(replaced="each_piece")),
}
PURE = [
    *PRESETS.values(),
    SPANBERT,
    Masking(rate=0.5, count="stochastic"),
    Masking(rate=0.4, count="rounded", random_ids="not_special"),
    Masking(rate=0.4, units=WholeWords(replaced="together")),
    Masking(rate=0.4, count="stochastic", units=NGrams(longest=4, replaced="together"), specials="like_any_token"),
    Masking(rate=0.4, count="stochastic", units=Spans(p=0.5), at_most=9),
    Masking(rate=0.4, count="stochastic", units=Windows(longest=2, replaced="together")),
]


@pytest.fixture(scope="module")
def corpus() -> Text:
    """250,000 tokens in sequences of 3 to 150."""
    lengths = np.random.default_rng(1).integers(3, 151, 3400).tolist()
    return text(lengths)


@pytest.mark.parametrize("name", PRESETS)
def test_split_between_mask_random_and_keep(corpus: Text, name: str) -> None:
    masking = PRESETS[name]
    assert len(corpus.ids) > 200_000
    masked = corpus.masked(masking)
    before, after = corpus.ids[masked.positions], masked.ids[masked.positions]
    selected = len(masked.positions)
    # a random id is the mask's or the old one's once in a thousand each: take that into account, exactly
    ids = 1000 if masking.random_ids == "any" else 995
    hit_mask = masking.random / ids if masking.random_ids == "any" else 0.0
    assert inside(int((after == 4).sum()), selected, masking.mask + hit_mask) or masking.mask == 1.0
    assert inside(
        int(((after == before) & (after != 4)).sum()), selected, 1 - masking.mask - masking.random + masking.random / ids
    ) or (masking.mask == 1.0)
    if masking.mask == 1.0:
        assert (after == 4).all()
    np.testing.assert_array_equal(masked.labels, before)
    untouched = np.setdiff1d(np.arange(len(corpus.ids)), masked.positions)
    np.testing.assert_array_equal(masked.ids[untouched], corpus.ids[untouched])
    assert (np.diff(masked.positions) > 0).all()


def test_rate_per_token_excluding_specials(corpus: Text) -> None:
    masked = corpus.masked(NEOBERT)
    ordinary = int((corpus.ids > 4).sum())
    assert inside(len(masked.positions), ordinary, 0.2)
    assert (corpus.ids[masked.positions] > 4).all()


def test_rate_per_token_including_specials(corpus: Text) -> None:
    masked = corpus.masked(MODERNBERT)
    assert inside(len(masked.positions), len(corpus.ids), 0.3)
    special = corpus.ids <= 4
    assert inside(int(special[masked.positions].sum()), int(special.sum()), 0.3)


def test_bert_counts_are_exact(corpus: Text) -> None:
    masked = corpus.masked(BERT)
    wanted = [min(max(1, round(0.15 * length)), length - 2) for length in corpus.lengths.tolist()]
    np.testing.assert_array_equal(per_sequence(corpus, masked), wanted)
    assert (corpus.ids[masked.positions] > 4).all()


def test_roberta_counts_are_rounded_at_random(corpus: Text) -> None:
    masked = corpus.masked(ROBERTA)
    exact = 0.15 * corpus.lengths
    excess = per_sequence(corpus, masked) - np.floor(exact)
    assert set(excess.tolist()) == {0.0, 1.0}
    up = exact - np.floor(exact)
    spread = np.sqrt((up * (1 - up)).sum())
    assert abs(excess.sum() - up.sum()) <= 3.2905 * spread
    special = corpus.ids <= 4
    chosen = special[masked.positions].sum()  # without replacement within a sequence: the variance is a little smaller
    assert inside(int(chosen), int(special.sum()), len(masked.positions) / len(corpus.ids))


def test_every_position_is_chosen_alike(corpus: Text) -> None:
    """The k smallest of random numbers are uniform over a sequence: no favour to its beginning."""
    masked = corpus.masked(Masking(rate=0.3, count="rounded", specials="like_any_token"))
    starts = np.repeat(np.cumsum(corpus.lengths) - corpus.lengths, corpus.lengths)
    first_half = (np.arange(len(corpus.ids)) - starts) < np.repeat(corpus.lengths, corpus.lengths) / 2
    assert inside(int(first_half[masked.positions].sum()), len(masked.positions), first_half.mean())


@pytest.mark.parametrize(("random_ids", "lowest"), [("any", 0), ("not_special", 5)])
def test_range_of_random_ids(corpus: Text, random_ids: str, lowest: int) -> None:
    masked = corpus.masked(Masking(rate=1.0, mask=0.0, random=1.0, random_ids=random_ids))  # type: ignore[arg-type]
    drawn = masked.ids[masked.positions]
    assert (drawn.min(), drawn.max()) == (lowest, 999)
    assert len(np.unique(drawn)) == 1000 - lowest  # 240 draws of each: none is left out
    expected = len(drawn) / (1000 - lowest)
    chi_square = ((np.bincount(drawn, minlength=1000)[lowest:] - expected) ** 2 / expected).sum()
    freedom = 999 - lowest
    assert abs(chi_square - freedom) <= 3.2905 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("masking", PURE)
def test_masks_of_a_sample_do_not_depend_on_its_batch(masking: Masking) -> None:
    lengths = {0: 40, 7: 3, 9: 128, 1_000_003: 40}
    packed = text(list(lengths.values()), list(lengths)).masked(masking, seed=5, epoch=2)
    at = 0
    for sample, length in lengths.items():
        alone = text([length], [sample]).masked(masking, seed=5, epoch=2)
        np.testing.assert_array_equal(packed.ids[at : at + length], alone.ids)
        here = (packed.positions >= at) & (packed.positions < at + length)
        np.testing.assert_array_equal(packed.positions[here] - at, alone.positions)
        at += length


@pytest.mark.parametrize("masking", PURE)
def test_seed_epoch_and_sample_each_change_the_masks(masking: Masking) -> None:
    one = text([128], [3]).masked(masking, seed=5, epoch=2)
    same = text([128], [3]).masked(masking, seed=5, epoch=2)
    np.testing.assert_array_equal(one.ids, same.ids)
    for seed, epoch in ((6, 2), (5, 3), (2, 5)):
        assert text([128], [3]).masked(masking, seed, epoch).positions.tolist() != one.positions.tolist()
    words = text([128], [3])
    other = mask_tokens(masking, VOCABULARY, words.ids, words.lengths, np.array([4]), 5, 2)
    assert other.positions.tolist() != one.positions.tolist()


def test_draws_of_epochs_are_independent(corpus: Text) -> None:
    """Two epochs select the same token as often as chance has it."""
    first, second = (set(corpus.masked(MODERNBERT, epoch=epoch).positions.tolist()) for epoch in (0, 1))
    assert inside(len(first & second), len(corpus.ids), 0.09)


def test_selection_action_and_random_id_are_independent(corpus: Text) -> None:
    """A token's own draws do not follow from each other: random ids are as high among its like as among all."""
    masked = corpus.masked(Masking(rate=0.5, mask=0.0, random=0.5))
    ids = masked.ids[masked.positions]
    replaced = ids != masked.labels
    assert inside(int((ids[replaced] >= 500).sum()), int(replaced.sum()), 0.5)


@given(st.lists(st.integers(2, 30), min_size=1, max_size=8), st.sampled_from(PURE), st.integers(-(2**70), 2**70))
def test_any_seed_and_lengths(lengths: list[int], masking: Masking, seed: int) -> None:
    words = text(lengths)
    masked = words.masked(masking, seed=seed)
    np.testing.assert_array_equal(masked.labels, words.ids[masked.positions])
    assert len(masked.ids) == len(words.ids)
    if masking.specials == "never":
        assert (masked.labels > 4).all()


GOLDEN = {
    "bert": (3233798517, 2543085724, 2205842652),
    "roberta": (4066672501, 3175586933, 1196040010),
    "modernbert": (956396956, 2986444121, 314070862),
    "neobert": (946304122, 4054550616, 3659443153),
    "electra": (2270252720, 2108250138, 1309948257),
    "half": (2180110250, 2902978378, 98596607),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_masks_are_those_of_earlier_versions(name: str) -> None:
    """So that runs go on as they were begun: the figures were made before there were other policies."""
    masking = {**PRESETS, "half": Masking(rate=0.5, count="stochastic", random_ids="not_special")}[name]
    lengths = np.array([3, 17, 64, 128, 40, 1, 250])
    ids = (np.arange(lengths.sum()) * 7919 % 995 + 5).astype(np.int32)
    ends = np.cumsum(lengths)
    ids[ends - lengths], ids[ends - 1] = 2, 3
    samples = np.array([0, 5, 7, 1_000_003, 2**33, 9, 11])
    found = []
    for epoch in (0, 3, np.arange(7)):
        masked = mask_tokens(masking, VOCABULARY, ids, lengths, samples, 12345, epoch)
        parts = (masked.labels, masked.positions, masked.ids)
        found.append(zlib.crc32(b"".join(part.astype("<i8").tobytes() for part in parts)))
    assert tuple(found) == GOLDEN[name]


def test_presets_are_what_was_published() -> None:
    assert (BERT.rate, BERT.mask, BERT.random, BERT.count, BERT.specials, BERT.random_ids) == (
        0.15,
        0.8,
        0.1,
        "rounded",
        "never",
        "any",
    )
    assert (ROBERTA.rate, ROBERTA.mask, ROBERTA.random) == (0.15, 0.8, 0.1)
    assert (ROBERTA.count, ROBERTA.specials, ROBERTA.random_ids) == ("stochastic", "like_any_token", "not_special")
    assert (MODERNBERT.rate, MODERNBERT.mask, MODERNBERT.random) == (0.3, 0.8, 0.1)
    assert (MODERNBERT.count, MODERNBERT.specials, MODERNBERT.random_ids) == ("per_token", "like_any_token", "any")
    assert (NEOBERT.rate, NEOBERT.mask, NEOBERT.random, NEOBERT.count, NEOBERT.specials) == (0.2, 1.0, 0.0, "per_token", "never")


def test_shares_beyond_one_are_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="exceed 1 together"):
        Masking(mask=0.8, random=0.3)


def test_a_tokenizer_without_mask_token_is_refused() -> None:
    import tokenizers
    from tokenizers import models

    from bothways.data.tokenizer import Tokenizer

    bare = Tokenizer(tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(InputError, match="no mask token"):
        Vocabulary.of(bare)


def test_vocabulary_may_be_larger_than_the_tokenizers(letters: object) -> None:
    vocabulary = Vocabulary.of(letters, size=64)  # type: ignore[arg-type]
    assert (vocabulary.size, vocabulary.mask_id) == (64, 4)
    assert vocabulary.ordinary.tolist() == list(range(5, 64))
