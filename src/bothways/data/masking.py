"""Masking for masked language modelling: which tokens are hidden, and behind what.

What is masked in a sample is a function of (seed, epoch, sample number): the same whoever computes
it, in whatever batch, and another in the next epoch. The published recipes differ in how many tokens
they select, which are selected together, whether special tokens may be selected, and where random tokens
come from; each is a field. What makes more than the sample decide says so: `PerBatch`, `RateLine`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pydantic
from jaxtyping import Bool, Float64, Int, UInt64

from bothways.config import config
from bothways.data.hashing import below, draw, keys, uniform
from bothways.data.mask_units import ByFrequency, NGrams, PerBatch, RateLine, Share, Spans, Units, WholeWords, Windows, WordUnits
from bothways.data.vocabulary import Vocabulary
from bothways.data.word_masking import Words, select
from bothways.errors import InputError

# Each token has four draws of its own. A sample's stochastic rounding takes the unused one of its first token.
_DRAWS, _SELECT, _ACTION, _RANDOM, _ROUND = 4, 0, 1, 2, 3
# Draws that belong to no place are in front of a stream: so many numbers each, the last of them just before its beginning
_SLOTS = -_DRAWS


@config
class Masking:
    """How a text is corrupted.

    Attributes:
        rate: the share of tokens selected for prediction; at first, where there is a `schedule`.
        mask: of those selected, the share replaced by the mask token.
        random: of those selected, the share replaced by a random token; the rest stay as they are.
        count: `per_token`: each token (or whole word) on its own, with probability `rate`. `rounded`: `rate` times the
            sample's length (special tokens included), rounded, at least one. `stochastic`: the same product
            rounded up or down at random so that the mean is exact. `PerBatch`: of all samples of a batch together.
        specials: whether special tokens may be selected.
        random_ids: whether a random token may be a special one.
        units: what is selected together; None: every token is selected on its own.
        at_most: the most tokens of a sample that are selected (BERT's and ALBERT's `max_predictions_per_seq`).
        copies: static masks: a sample has so many, and in epoch e the one numbered e modulo `copies` (BERT's and ALBERT's
            codes write a text 10 and 40 times). None: new ones in every epoch.
        schedule: how the rate changes while a run goes on; None: not at all.
        repeats: `allowed`: places are drawn with replacement, as in ELECTRA's code (arXiv 2003.10555). One that comes twice is
            predicted twice, counts twice, and shows the mask token if one of its draws says so. None: each comes once at most.
    """

    rate: Share = 0.3
    mask: Share = 0.8
    random: Share = 0.1
    count: Literal["per_token", "rounded", "stochastic"] | PerBatch = "per_token"
    specials: Literal["never", "like_any_token"] = "never"
    random_ids: Literal["any", "not_special"] = "any"
    # fields that came later are None where they change nothing, so that runs recorded before them can go on
    units: Units | None = None
    at_most: pydantic.PositiveInt | None = None
    copies: pydantic.PositiveInt | None = None
    schedule: RateLine | None = None
    repeats: Literal["allowed"] | None = None

    @pydantic.model_validator(mode="after")
    def _check(self) -> Masking:
        if self.mask + self.random > 1.0:
            raise ValueError(f"mask {self.mask} and random {self.random} are shares of the same tokens: they exceed 1 together")
        batch = isinstance(self.count, PerBatch)
        clashes = {
            f"units {self.units and self.units.type} fill a number of tokens: set count to rounded, stochastic or per batch":
                self.count == "per_token" and isinstance(self.units, Spans | NGrams | Windows | ByFrequency),
            "units by_frequency: special tokens have no frequency; set specials to never":
                isinstance(self.units, ByFrequency) and self.specials != "never",
            "units windows follow each other in a sample: set count to rounded or stochastic":
                batch and isinstance(self.units, Windows),
            "at_most is of a sample's count: set count to rounded or stochastic":
                self.at_most is not None and (batch or self.count == "per_token"),
            "repeats are drawn token by token until there are enough: they go with count rounded or stochastic, without units":
                self.repeats is not None and (batch or self.count == "per_token" or self.units is not None),
            "copies are masks of single samples: they go without count per batch": self.copies is not None and batch,
            "copies are made once, with one rate: they go without a schedule":
                self.copies is not None and self.schedule is not None,
            "rows are the same in every batch: they go without a schedule":
                isinstance(self.count, PerBatch) and self.count.rows is not None and self.schedule is not None,
        }  # fmt: skip
        if fault := next((message for message, found in clashes.items() if found), None):
            raise ValueError(f"masking: {fault}")
        return self

    def within(self, tokens: int) -> Masking:
        """With a budget of so many tokens, where a schedule has none of its own."""
        if self.schedule is None or self.schedule.tokens is not None:
            return self
        return replace(self, schedule=replace(self.schedule, tokens=tokens))

    def behind(self, tokens: int) -> Masking:
        """The masking of a batch that has so many tokens of its stream before it: with one rate."""
        if self.schedule is None:
            return self
        assert self.schedule.tokens is not None, "`within` gives a schedule its tokens"
        done = min(tokens / self.schedule.tokens, 1.0)
        return replace(self, rate=(1 - done) * self.rate + done * self.schedule.to, schedule=None)

    def measured(self, rate: float | None) -> Masking:
        """The masking of text that is measured on: with one rate, the given one or the first."""
        if rate is None:
            return replace(self, schedule=None)
        count = PerBatch() if isinstance(self.count, PerBatch) else self.count
        return replace(self, rate=rate, count=count, schedule=None)

    @property
    def rates(self) -> str:
        """The rate in words."""
        return f"{self.rate:.0%}" if self.schedule is None else f"{self.rate:.0%} to {self.schedule.to:.0%}"


# As published: 1810.04805 and its code, 1907.11692 and fairseq, 2412.13663, 2502.19587, 2003.10555
BERT = Masking(rate=0.15, count="rounded")
ROBERTA = Masking(rate=0.15, count="stochastic", specials="like_any_token", random_ids="not_special")
MODERNBERT = Masking(rate=0.3, specials="like_any_token")
NEOBERT = Masking(rate=0.2, mask=1.0, random=0.0)
ELECTRA = Masking(rate=0.15, mask=0.85, random=0.0, count="rounded")
# 1907.10529, 1909.11942, the codes of DeBERTa (masked language modelling), DeBERTa-v3 (the generator), DistilBERT and RetroMAE
SPANBERT = Masking(rate=0.15, count="rounded", units=Spans())
ALBERT = Masking(rate=0.15, count="rounded", units=NGrams())
DEBERTA = Masking(rate=0.15, count="rounded", units=Windows())
DEBERTA_V3 = Masking(rate=0.15, mask=1.0, random=0.0, count="rounded", units=Windows(longest=1, whole_words=False))
DISTILBERT = Masking(rate=0.15, count=PerBatch(), units=ByFrequency())
RETROMAE = Masking(rate=0.3, count="rounded", units=WholeWords())


@dataclass(frozen=True, eq=False)
class Masked:
    """Corrupted ids [tokens]; and the rows to predict, ascending, with the ids that stood there, [predicted].

    With `Masking.repeats` a row may be there several times.
    """

    ids: Int[np.ndarray, " tokens"]
    positions: Int[np.ndarray, " predicted"]
    labels: Int[np.ndarray, " predicted"]


def needs_words(masking: Masking) -> bool:
    """Whether masking has to know where words begin."""
    units = masking.units
    return units.whole_words if isinstance(units, Windows) else isinstance(units, WholeWords | Spans | NGrams)


def check_masking(masking: Masking, vocabulary: Vocabulary) -> None:
    """Raises InputError where masking has to know of a vocabulary what is not known."""
    if needs_words(masking) and vocabulary.words is None:
        raise InputError(
            "masking.units: the pieces of this tokenizer do not say where words begin; set it to null, or take a tokenizer "
            "whose pieces do (WordPiece, byte-level BPE, sentencepiece)"
        )
    if isinstance(masking.units, ByFrequency) and vocabulary.counts is None:
        raise InputError("masking.units: by_frequency needs to know how often each token occurs (Vocabulary.counts)")


def mask_tokens(
    masking: Masking,
    vocabulary: Vocabulary,
    ids: Int[np.ndarray, " tokens"],
    lengths: Int[np.ndarray, " sequences"],
    samples: Int[np.ndarray, " sequences"],
    seed: int,
    epoch: int | Int[np.ndarray, " sequences"],
) -> Masked:
    """Mask packed sequences, one a sample: the masks of a sample do not depend on the others (but for `PerBatch`).

    Args:
        masking: with one rate.
        epoch: the pass in which the samples are read, or that of each.

    Raises:
        InputError: a rate that moves: what asks does not know the place in the stream.
    """
    if masking.schedule is not None:
        raise InputError(
            "masking.schedule: a rate that moves goes with masked language modelling alone, whose batches know the tokens before "
            "them; set it to null, or take `Masking.behind`"
        )
    own = keys(seed, epoch if masking.copies is None else epoch % masking.copies, items=samples)
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(len(ids)) - np.repeat(starts, lengths)
    owners = np.repeat(own, lengths)
    eligible = np.ones(len(ids), bool) if masking.specials == "like_any_token" else ~vocabulary.is_special[ids]
    draws = draw(owners, positions * _DRAWS + _SELECT)
    scopes = np.array([len(ids)]) if isinstance(masking.count, PerBatch) else lengths
    wanted = wanted_counts(masking, lengths, own)
    match masking.units:
        case None if masking.repeats is not None and wanted is not None:
            chosen, slots = _repeated(eligible, lengths, wanted, own)
            return _corrupted(masking, vocabulary, ids, chosen, owners[chosen], _SLOTS - slots * _DRAWS, _SLOTS - slots * _DRAWS)
        case None | ByFrequency():
            if wanted is None:
                chosen = np.flatnonzero((uniform(draws) < masking.rate) & eligible)
            else:
                order = draws if masking.units is None else _times(masking.units, vocabulary, ids, draws)
                chosen = first_in_order(order, eligible, scopes, wanted)
            leaders = chosen
        case units:
            words = Words.of(_joined(units, vocabulary, ids, positions), eligible, np.repeat(np.arange(len(lengths)), lengths))
            # streams behind all of those of tokens
            chosen, leaders = _whole(masking, units, words, draws, draw(owners, -1 - positions), own, wanted)
    return _corrupted(masking, vocabulary, ids, chosen, owners[chosen], positions[leaders] * _DRAWS, positions[chosen] * _DRAWS)


def _corrupted(
    masking: Masking,
    vocabulary: Vocabulary,
    ids: Int[np.ndarray, " tokens"],
    chosen: Int[np.ndarray, " chosen"],
    owners: UInt64[np.ndarray, " chosen"],
    leaders: Int[np.ndarray, " chosen"],
    own: Int[np.ndarray, " chosen"],
) -> Masked:
    """The text with something else at the chosen places; where in their owners' streams it is drawn what, and which token."""
    found = _replacements(masking, vocabulary, ids[chosen], draw(owners, leaders + _ACTION), draw(owners, own + _RANDOM))
    corrupted = ids.copy()
    corrupted[chosen] = found
    hidden = found == vocabulary.mask_id
    corrupted[chosen[hidden]] = vocabulary.mask_id  # of a place that comes several times, one is enough
    return Masked(corrupted, chosen, ids[chosen])


def _repeated(
    eligible: Bool[np.ndarray, " tokens"],
    lengths: Int[np.ndarray, " sequences"],
    wanted: Int[np.ndarray, " sequences"],
    owners: UInt64[np.ndarray, " sequences"],
) -> tuple[Int[np.ndarray, " drawn"], Int[np.ndarray, " drawn"]]:
    """As many eligible places of each sequence as are wanted, each drawn from all of them, ascending; and which draw each was."""
    found = np.flatnonzero(eligible)
    sequences = np.arange(len(lengths))
    held = np.bincount(np.repeat(sequences, lengths)[found], minlength=len(lengths))
    counts = np.where(held > 0, wanted, 0)
    of = np.repeat(sequences, counts)
    slots = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    among = np.floor(uniform(draw(owners[of], _SLOTS - slots * _DRAWS + _SELECT)) * held[of]).astype(np.int64)
    chosen = found[(np.cumsum(held) - held)[of] + among]
    order = np.argsort(chosen, kind="stable")
    return chosen[order], slots[order]


def wanted_counts(
    masking: Masking, lengths: Int[np.ndarray, " sequences"], owners: UInt64[np.ndarray, " sequences"]
) -> Int[np.ndarray, " scopes"] | None:
    """How many tokens to select in each sequence, or in the batch; None where each token is on its own."""
    match masking.count:
        case "per_token":
            return None
        case PerBatch(rows=rows):
            return np.array([math.ceil(masking.rate * int(lengths.sum())) if rows is None else rows])
        case "rounded":
            counts = np.maximum(np.rint(masking.rate * lengths), 1).astype(np.int64)
        case "stochastic":
            counts = np.floor(masking.rate * lengths + uniform(draw(owners, _ROUND))).astype(np.int64)
    return counts if masking.at_most is None else np.minimum(counts, masking.at_most)


def _joined(
    units: WordUnits, vocabulary: Vocabulary, ids: Int[np.ndarray, " tokens"], positions: Int[np.ndarray, " tokens"]
) -> Bool[np.ndarray, " tokens"]:
    """Whether each token is of the same word as the one before it."""
    if isinstance(units, Windows) and not units.whole_words:
        return np.zeros(len(ids), dtype=bool)
    assert vocabulary.words is not None, "`check_masking` has been asked"
    return vocabulary.words.joined(ids) & (positions > 0)


def _times(
    units: ByFrequency, vocabulary: Vocabulary, ids: Int[np.ndarray, " tokens"], draws: UInt64[np.ndarray, " tokens"]
) -> Float64[np.ndarray, " tokens"]:
    """When each token comes: the first of them are as if drawn one after the other by their chances, none put back."""
    return -np.log1p(-uniform(draws)) * np.exp(units.power * vocabulary.log_counts[ids])


def first_in_order(
    order: UInt64[np.ndarray, " tokens"] | Float64[np.ndarray, " tokens"],
    eligible: Bool[np.ndarray, " tokens"],
    lengths: Int[np.ndarray, " scopes"],
    wanted: Int[np.ndarray, " scopes"],
) -> Int[np.ndarray, " chosen"]:
    """The `wanted` eligible tokens of each scope that come first, ascending; all of them where there are fewer."""
    found = np.flatnonzero(eligible)
    scope = np.repeat(np.arange(len(lengths)), lengths)[found]
    held = np.bincount(scope, minlength=len(lengths))
    if order.dtype == np.uint64:
        # only the first have to be brought in order; where too few are early, all of their scope are
        likely = (1.5 * wanted + 4 * np.sqrt(wanted) + 4) / np.maximum(held, 1)
        early = uniform(order[found]) < likely[scope]
        enough = np.bincount(scope[early], minlength=len(lengths)) >= np.minimum(wanted, held)
        kept = early | ~enough[scope]
        found, scope = found[kept], scope[kept]
        held = np.bincount(scope, minlength=len(lengths))
    ranked = np.lexsort((order[found], scope))
    rank = np.arange(len(found)) - np.repeat(np.cumsum(held) - held, held)
    return np.sort(found[ranked[rank < np.repeat(wanted, held)]])


def _whole(
    masking: Masking,
    units: WordUnits,
    words: Words,
    draws: UInt64[np.ndarray, " tokens"],
    lengths: UInt64[np.ndarray, " tokens"],
    owners: UInt64[np.ndarray, " sequences"],
    wanted: Int[np.ndarray, " scopes"] | None,
) -> tuple[Int[np.ndarray, " chosen"], Int[np.ndarray, " chosen"]]:
    """The selected tokens, ascending; and for each the one that decides what becomes of it."""
    if wanted is None:
        chosen = leaders = np.flatnonzero(uniform(draws[words.places]) < masking.rate)
    else:
        scopes = np.zeros_like(words.sequences) if isinstance(masking.count, PerBatch) else words.sequences
        some = select(units, words, scopes, wanted, draws[words.places], lengths[words.places], owners, masking.rate)
        chosen, leaders = some.words, some.leaders
    tokens = words.tokens(chosen)
    first = tokens if units.replaced == "each_piece" else np.repeat(words.places[leaders], words.sizes[chosen])
    order = np.argsort(tokens)
    return tokens[order], first[order]


def _replacements(
    masking: Masking,
    vocabulary: Vocabulary,
    ids: Int[np.ndarray, " chosen"],
    actions: UInt64[np.ndarray, " chosen"],
    drawn: UInt64[np.ndarray, " chosen"],
) -> Int[np.ndarray, " chosen"]:
    """What stands at the selected tokens: the mask token, a random one, or the token itself."""
    action = uniform(actions)
    if masking.random_ids == "any":
        random = below(drawn, vocabulary.size)
    else:
        random = vocabulary.ordinary[below(drawn, len(vocabulary.ordinary))]
    kept_or_random = np.where(action < masking.mask + masking.random, random, ids)
    return np.where(action < masking.mask, vocabulary.mask_id, kept_or_random)
