"""Explicit n-gram masking: an n-gram of the lexicon becomes one mask, and the text is shorter for it (arXiv 2010.12148).

A text is cut into units, n-grams and single tokens; some are selected, and each shows one token in the place of all it had.
What is selected is a function of (seed, epoch, sample number), as in `data/masking.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt64

from bothways.data.hashing import below, draw, keys, uniform
from bothways.data.lexicon import Units
from bothways.data.mask_units import PerBatch
from bothways.data.masking import Masking, first_in_order, wanted_counts
from bothways.data.vocabulary import Vocabulary
from bothways.errors import InputError

# 15 % of the units, whatever their length. The paper does not say that some keep their text, as BERT's do: here none does
ERNIE_GRAM = Masking(rate=0.15, mask=1.0, random=0.0)

# Tells these numbers from those of other masks; each unit has draws of its own
_NGRAMS = 0x4E4752414D
_DRAWS, _SELECT, _ACTION, _RANDOM = 4, 0, 1, 2


@dataclass(frozen=True, eq=False)
class MaskedNGrams:
    """A shortened text, and what stood at the selected units.

    N-grams have ids of their own behind those of tokens, in the order of the lexicon.

    Attributes:
        ids: [shortened], with what is shown at each selected unit.
        lengths: of the sequences, shortened.
        positions: of the selected units in `ids`, ascending.
        labels: what each is, a token or an n-gram.
        sizes: the tokens of each.
        pieces: these tokens, unit after unit.
    """

    ids: Int[np.ndarray, " shortened"]
    lengths: Int[np.ndarray, " sequences"]
    positions: Int[np.ndarray, " predicted"]
    labels: Int[np.ndarray, " predicted"]
    sizes: Int[np.ndarray, " predicted"]
    pieces: Int[np.ndarray, " pieces"]


def check_ngram_masking(masking: Masking, vocabulary: Vocabulary) -> None:
    """Raises InputError where a masking says what n-grams decide themselves, or there is no lexicon."""
    if masking.units is not None:
        raise InputError(f"masking.units: the lexicon's n-grams are selected, not {masking.units.type}; set it to null")
    if isinstance(masking.count, PerBatch):
        raise InputError("masking.count: n-grams are selected in each sample; set it to per_token, rounded or stochastic")
    if masking.schedule is not None:
        raise InputError("masking.schedule: a rate that moves goes with masked tokens alone; set it to null")
    if masking.repeats is not None:
        raise InputError("masking.repeats: an n-gram is selected once; set it to null")
    lexicon = vocabulary.lexicon
    if lexicon is None or not len(lexicon):
        raise InputError("ngrams.lexicon: has no n-gram, so that this would be masked language modelling; give another one")


def mask_ngrams(
    masking: Masking,
    vocabulary: Vocabulary,
    ids: Int[np.ndarray, " tokens"],
    lengths: Int[np.ndarray, " sequences"],
    samples: Int[np.ndarray, " sequences"],
    seed: int,
    epoch: int | Int[np.ndarray, " sequences"],
    first: int,
) -> MaskedNGrams:
    """Mask packed sequences, one a sample: the masks of a sample do not depend on the others.

    Args:
        masking: its rate and count are of units, n-grams and single tokens; special tokens are some of the latter.
        epoch: as of `mask_tokens`.
        first: the id of the lexicon's first n-gram, at least the size of the vocabulary.
    """
    lexicon = vocabulary.lexicon
    assert lexicon is not None, "`check_ngram_masking` has been asked"
    units = lexicon.units(ids, lengths)
    sequences = np.repeat(np.arange(len(lengths)), lengths)
    own = keys(seed, epoch if masking.copies is None else epoch % masking.copies, _NGRAMS, items=samples)
    owners = own[sequences[units.firsts]]
    places = (units.firsts - (np.cumsum(lengths) - lengths)[sequences[units.firsts]]) * _DRAWS
    chosen = _selected(masking, vocabulary, ids, lengths, units, own, draw(owners, places + _SELECT))
    firsts, sizes, numbers = units.firsts[chosen], units.sizes[chosen], units.numbers[chosen]
    labels = np.where(numbers >= 0, first + numbers, ids[firsts])
    actions, drawn = (draw(owners[chosen], places[chosen] + which) for which in (_ACTION, _RANDOM))
    rows = np.repeat(firsts - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
    kept = np.ones(len(ids), bool)
    kept[rows] = False
    kept[firsts] = True
    shown = ids.astype(np.int64)
    shown[firsts] = _shown(masking, vocabulary, first, labels, actions, drawn)
    gone = np.bincount(sequences[firsts], weights=sizes - 1, minlength=len(lengths)).astype(np.int64)
    return MaskedNGrams(shown[kept], lengths - gone, np.cumsum(kept)[firsts] - 1, labels, sizes, ids[rows].astype(np.int64))


def _selected(
    masking: Masking,
    vocabulary: Vocabulary,
    ids: Int[np.ndarray, " tokens"],
    lengths: Int[np.ndarray, " sequences"],
    units: Units,
    own: UInt64[np.ndarray, " sequences"],
    draws: UInt64[np.ndarray, " units"],
) -> Int[np.ndarray, " predicted"]:
    """The numbers of the selected units, ascending."""
    single = ids[units.firsts]
    eligible = np.ones(len(single), bool) if masking.specials == "like_any_token" else ~vocabulary.is_special[single]
    held = np.diff(np.searchsorted(units.firsts, np.concatenate([[0], np.cumsum(lengths)])))
    wanted = wanted_counts(masking, held, own)
    if wanted is None:
        return np.flatnonzero((uniform(draws) < masking.rate) & eligible)
    return first_in_order(draws, eligible, held, wanted)


def _shown(
    masking: Masking,
    vocabulary: Vocabulary,
    first: int,
    labels: Int[np.ndarray, " predicted"],
    actions: UInt64[np.ndarray, " predicted"],
    drawn: UInt64[np.ndarray, " predicted"],
) -> Int[np.ndarray, " predicted"]:
    """What stands at the selected units: the mask token, a random token or n-gram, or what it is itself, as one."""
    action = uniform(actions)
    tokens = np.arange(vocabulary.size) if masking.random_ids == "any" else vocabulary.ordinary
    assert vocabulary.lexicon is not None, "`check_ngram_masking` has been asked"
    number = below(drawn, len(tokens) + len(vocabulary.lexicon))
    random = np.where(number < len(tokens), tokens[number % len(tokens)], first + number - len(tokens))
    kept_or_random = np.where(action < masking.mask + masking.random, random, labels)
    return np.where(action < masking.mask, vocabulary.mask_id, kept_or_random)
