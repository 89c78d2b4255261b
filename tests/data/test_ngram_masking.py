"""Explicit n-gram masking: one mask an n-gram, in a text that is shorter for it; by chance as asked, and by sample alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.data.packed import VOCABULARY, Text, inside, text
from tests.data.test_lexicon import lexicon

from bothways.data.lexicon import Lexicon
from bothways.data.mask_units import NGrams, PerBatch, RateLine
from bothways.data.masking import Masking
from bothways.data.ngram_masking import ERNIE_GRAM, MaskedNGrams, check_ngram_masking, mask_ngrams
from bothways.errors import InputError

FIRST = 1024  # rows of the table, more than the vocabulary has
# a tenth of all pairs over the 995 ordinary tokens, and all triples that begin with two of those
GENERATOR = np.random.default_rng(0)
PAIRS = sorted({(int(a), int(b)) for a, b in GENERATOR.integers(5, 1000, (100_000, 2))})
LEXICON = Lexicon(
    (np.array(PAIRS, np.int32), np.array([(*pair, i) for pair in PAIRS[:2000] for i in range(5, 1000, 2)], np.int32)),
    (np.zeros(len(PAIRS)), np.zeros(2000 * 498)), 1000, "",
)  # fmt: skip
KNOWN = replace(VOCABULARY, lexicon=LEXICON)


def masked(corpus: Text, masking: Masking = ERNIE_GRAM, seed: int = 0, epoch: int = 0) -> MaskedNGrams:
    return mask_ngrams(masking, KNOWN, corpus.ids, corpus.lengths, corpus.samples, seed, epoch, FIRST)


def tokens_of(label: int) -> tuple[int, ...]:
    return (label,) if label < FIRST else LEXICON.tokens(label - FIRST)


CORPUS = text([500] * 500)  # 250,000 tokens


def test_an_n_gram_is_one_mask() -> None:
    """Reference check 15.(1): by hand, an n-gram shortens the text by n - 1 and is one target."""
    few = replace(VOCABULARY, lexicon=lexicon((10, 11), (12, 13, 14), vocab_size=1000))
    ids = np.array([2, 10, 11, 7, 12, 13, 14, 3, 2, 10, 11, 3])
    made = mask_ngrams(replace(ERNIE_GRAM, rate=1.0), few, ids, np.array([8, 4]), np.array([0, 1]), 0, 0, FIRST)
    assert made.ids.tolist() == [2, 4, 4, 4, 3, 2, 4, 3]
    assert made.lengths.tolist() == [5, 3]
    assert made.positions.tolist() == [1, 2, 3, 6]
    assert made.labels.tolist() == [FIRST, 7, FIRST + 1, FIRST]
    assert made.sizes.tolist() == [2, 1, 3, 2]
    assert made.pieces.tolist() == [10, 11, 7, 12, 13, 14, 10, 11]


def test_the_text_is_shorter_and_nothing_of_it_is_lost() -> None:
    """Fails where the n-grams are silently left out: some are masked, and the text is shorter by exactly what they had."""
    made = masked(CORPUS)
    ngrams = made.labels >= FIRST
    assert ngrams.mean() > 0.05
    assert (made.sizes[ngrams] > 1).all()
    assert (made.sizes[~ngrams] == 1).all()
    assert set(made.sizes.tolist()) == {1, 2, 3}
    assert len(made.ids) == made.lengths.sum() == len(CORPUS.ids) - (made.sizes - 1).sum()
    restored, pieces = made.ids.tolist(), iter(zip(made.positions.tolist(), made.labels.tolist(), strict=True))
    whole: list[int] = []
    at, label = next(pieces)
    for place, shown in enumerate(restored):
        if place == at:
            whole.extend(tokens_of(label))
            at, label = next(pieces, (-1, 0))
        else:
            whole.append(shown)
    np.testing.assert_array_equal(whole, CORPUS.ids)
    np.testing.assert_array_equal(made.pieces, [i for one in made.labels.tolist() for i in tokens_of(one)])


@pytest.mark.parametrize("count", ["per_token", "stochastic", "rounded"])
def test_rates_are_those_of_units(count: str) -> None:
    """Reference check X4, over a quarter of a million tokens: 15 % of n-grams and tokens, and the same of either."""
    masking = replace(ERNIE_GRAM, count=count)
    made = masked(CORPUS, masking)
    units = LEXICON.units(CORPUS.ids, CORPUS.lengths)
    eligible = ~VOCABULARY.is_special[CORPUS.ids[units.firsts]]
    if count == "per_token":
        assert inside(len(made.labels), int(eligible.sum()), 0.15)
    else:
        each = np.bincount(np.searchsorted(np.cumsum(CORPUS.lengths), units.firsts, side="right"))
        found = np.bincount(np.searchsorted(np.cumsum(made.lengths), made.positions, side="right"), minlength=500)
        assert np.abs(found - 0.15 * each).max() <= (0.5 if count == "rounded" else 1)
    for size in (1, 2, 3):
        of_size = eligible & (units.sizes == size)
        share = 0.15 if count == "per_token" else len(made.labels) / eligible.sum()
        assert inside(int((made.sizes == size).sum()), int(of_size.sum()), float(share))
    assert not VOCABULARY.is_special[made.pieces].any()
    assert (made.ids[made.positions] == 4).all()


@pytest.mark.parametrize("random_ids", ["any", "not_special"])
def test_masks_random_units_and_what_stays(random_ids: str) -> None:
    """Reference check X4: 80, 10 and 10 %; random ones are tokens and n-grams alike, from the first to the last."""
    made = masked(CORPUS, Masking(rate=0.5, random_ids=random_ids))  # type: ignore[arg-type]
    shown, total = made.ids[made.positions], len(made.labels)
    kept = shown == made.labels
    hidden = shown == 4
    random = shown[~kept & ~hidden]
    assert inside(int(hidden.sum()), total, 0.8)
    assert inside(int(kept.sum()), total, 0.1)
    assert inside(len(random), total, 0.1)
    assert len(random) > 5000
    low = {"any": 0, "not_special": 5}[random_ids]
    assert inside(int((random < FIRST).sum()), len(random), (1000 - low) / (1000 - low + len(LEXICON)))
    assert random.min() >= low
    assert not ((random >= 1000) & (random < FIRST)).any()  # rows that no token has
    assert FIRST + 0.999 * len(LEXICON) < random.max() < FIRST + len(LEXICON)


def test_random_ids_have_the_ends_of_their_range() -> None:
    small = replace(VOCABULARY, lexicon=lexicon((10, 11), (12, 13, 14), vocab_size=1000))
    corpus = text([500] * 40)
    arguments = (small, corpus.ids, corpus.lengths, corpus.samples, 0, 0, FIRST)
    for masking, low in (
        (Masking(rate=1.0, mask=0.0, random=1.0), 0),
        (Masking(rate=1.0, mask=0.0, random=1.0, random_ids="not_special"), 5),
    ):
        made = mask_ngrams(masking, *arguments)
        assert (made.ids[made.positions].min(), made.ids[made.positions].max()) == (low, FIRST + 1)


def test_special_tokens_are_selected_where_asked() -> None:
    made = masked(CORPUS, replace(ERNIE_GRAM, specials="like_any_token"))
    special = VOCABULARY.is_special[made.pieces]
    assert inside(int(special.sum()), 1000, 0.15)


def test_masks_are_a_function_of_seed_epoch_and_sample() -> None:
    """Reference check X5: whatever is beside a sample, and in whatever order."""
    lengths, samples = [60, 300, 5, 128], [7, 1, 99, 3]
    corpus = text(lengths, samples)
    made = masked(corpus, seed=3, epoch=2)
    starts, firsts = np.cumsum([0, *made.lengths]), np.cumsum([0, *lengths])
    for i in (2, 0, 3, 1):
        alone = Text(corpus.ids[firsts[i] : firsts[i + 1]], np.array([lengths[i]]), np.array([samples[i]]))
        one = masked(alone, seed=3, epoch=2)
        np.testing.assert_array_equal(one.ids, made.ids[starts[i] : starts[i + 1]])
        own = (made.positions >= starts[i]) & (made.positions < starts[i + 1])
        np.testing.assert_array_equal(one.labels, made.labels[own])
    for seed, epoch in ((3, 3), (4, 2)):
        other = masked(corpus, seed=seed, epoch=epoch)
        assert other.positions.tolist() != made.positions.tolist()
    copies = replace(ERNIE_GRAM, copies=2)
    assert masked(corpus, copies, epoch=3).ids.tolist() == masked(corpus, copies, epoch=1).ids.tolist()
    epochs = mask_ngrams(ERNIE_GRAM, KNOWN, corpus.ids, corpus.lengths, corpus.samples, 3, np.array([2, 2, 2, 2]), FIRST)
    assert epochs.ids.tolist() == made.ids.tolist()


def test_what_n_grams_do_not_go_with() -> None:
    with pytest.raises(InputError, match=r"masking\.units: .* not n_grams"):
        check_ngram_masking(Masking(rate=0.15, count="rounded", units=NGrams()), KNOWN)
    with pytest.raises(InputError, match=r"masking\.count"):
        check_ngram_masking(Masking(count=PerBatch()), KNOWN)
    with pytest.raises(InputError, match=r"masking\.schedule"):
        check_ngram_masking(Masking(schedule=RateLine(to=0.2)), KNOWN)
    with pytest.raises(InputError, match=r"masking\.repeats"):
        check_ngram_masking(Masking(count="rounded", repeats="allowed"), KNOWN)
    for nothing in (VOCABULARY, replace(VOCABULARY, lexicon=lexicon())):
        with pytest.raises(InputError, match="would be masked language modelling"):
            check_ngram_masking(ERNIE_GRAM, nothing)
