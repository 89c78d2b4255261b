"""Dynamic masking for masked language modelling: which tokens are hidden, and behind what.

What is masked in a sample is a function of (seed, epoch, sample number): the same whoever computes
it, in whatever batch, and another in the next epoch. The published recipes differ in how many tokens
they select, whether special tokens may be selected, and where random tokens come from; each is a field.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import pydantic
from jaxtyping import Bool, Int, UInt64

from bothways.config import config
from bothways.data.hashing import below, draw, keys, uniform
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError

Share = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]

# Each token has four draws of its own. A sample's stochastic rounding takes the unused one of its first token.
_DRAWS, _SELECT, _ACTION, _RANDOM, _ROUND = 4, 0, 1, 2, 3


@config
class Masking:
    """How a text is corrupted.

    Attributes:
        rate: the share of tokens selected for prediction.
        mask: of those selected, the share replaced by the mask token.
        random: of those selected, the share replaced by a random token; the rest stay as they are.
        count: `per_token`: each token on its own, with probability `rate`. `rounded`: `rate` times the
            sample's length (special tokens included), rounded, at least one. `stochastic`: the same product
            rounded up or down at random so that the mean is exact.
        specials: whether special tokens may be selected.
        random_ids: whether a random token may be a special one.
    """

    rate: Share = 0.3
    mask: Share = 0.8
    random: Share = 0.1
    count: Literal["per_token", "rounded", "stochastic"] = "per_token"
    specials: Literal["never", "like_any_token"] = "never"
    random_ids: Literal["any", "not_special"] = "any"

    @pydantic.model_validator(mode="after")
    def _check(self) -> Masking:
        if self.mask + self.random > 1.0:
            raise ValueError(f"mask {self.mask} and random {self.random} are shares of the same tokens: they exceed 1 together")
        return self


# As published: 1810.04805 and its code, 1907.11692 and fairseq, 2412.13663, 2502.19587
BERT = Masking(rate=0.15, count="rounded")
ROBERTA = Masking(rate=0.15, count="stochastic", specials="like_any_token", random_ids="not_special")
MODERNBERT = Masking(rate=0.3, specials="like_any_token")
NEOBERT = Masking(rate=0.2, mask=1.0, random=0.0)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What masking needs to know of the token ids: their number (of the embedding, if larger), and the special ones."""

    size: int
    mask_id: int
    special_ids: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer, size: int | None = None) -> Vocabulary:
        """Raises InputError where the tokenizer has no mask token."""
        if tokenizer.mask_id is None:
            raise InputError("the tokenizer has no mask token ([MASK] or <mask>): masked language modelling needs one")
        return cls(tokenizer.vocab_size if size is None else size, tokenizer.mask_id, tokenizer.special_ids)

    @cached_property
    def is_special(self) -> Bool[np.ndarray, " vocabulary"]:
        table = np.zeros(self.size, dtype=bool)
        table[[i for i in self.special_ids if i < self.size]] = True
        return table

    @cached_property
    def ordinary(self) -> Int[np.ndarray, " ordinary"]:
        """The ids that are not special."""
        return np.flatnonzero(~self.is_special)


@dataclass(frozen=True, eq=False)
class Masked:
    """Corrupted ids [tokens]; and the rows to predict, ascending, with the ids that stood there, [predicted]."""

    ids: Int[np.ndarray, " tokens"]
    positions: Int[np.ndarray, " predicted"]
    labels: Int[np.ndarray, " predicted"]


def mask_tokens(
    masking: Masking,
    vocabulary: Vocabulary,
    ids: Int[np.ndarray, " tokens"],
    lengths: Int[np.ndarray, " sequences"],
    samples: Int[np.ndarray, " sequences"],
    seed: int,
    epoch: int | Int[np.ndarray, " sequences"],
) -> Masked:
    """Mask packed sequences, one a sample: the masks of a sample do not depend on the others.

    Args:
        epoch: the pass in which the samples are read, or that of each.
    """
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(len(ids)) - np.repeat(starts, lengths)
    owners = np.repeat(keys(seed, epoch, items=samples), lengths)
    eligible = np.ones(len(ids), bool) if masking.specials == "like_any_token" else ~vocabulary.is_special[ids]
    draws = draw(owners, positions * _DRAWS + _SELECT)
    if masking.count == "per_token":
        chosen = np.flatnonzero((uniform(draws) < masking.rate) & eligible)
    else:
        wanted = _counts(masking, lengths, keys(seed, epoch, items=samples))
        chosen = _first_by_draw(draws, eligible, lengths, wanted)
    corrupted = ids.copy()
    corrupted[chosen] = _replacements(masking, vocabulary, ids[chosen], owners[chosen], positions[chosen] * _DRAWS)
    return Masked(corrupted, chosen, ids[chosen])


def _counts(masking: Masking, lengths: Int[np.ndarray, " sequences"], owners: UInt64[np.ndarray, " sequences"]) -> np.ndarray:
    """How many tokens to select in each sequence."""
    exact = masking.rate * lengths
    if masking.count == "rounded":
        return np.maximum(np.rint(exact), 1).astype(np.int64)
    return np.floor(exact + uniform(draw(owners, _ROUND))).astype(np.int64)


def _first_by_draw(
    draws: UInt64[np.ndarray, " tokens"],
    eligible: Bool[np.ndarray, " tokens"],
    lengths: Int[np.ndarray, " sequences"],
    wanted: Int[np.ndarray, " sequences"],
) -> Int[np.ndarray, " chosen"]:
    """The `wanted` eligible tokens of smallest draw in each sequence, ascending; all of them where there are fewer."""
    candidates = np.flatnonzero(eligible)
    sequence = np.repeat(np.arange(len(lengths)), lengths)[candidates]
    order = np.lexsort((draws[candidates], sequence))
    held = np.bincount(sequence, minlength=len(lengths))
    rank = np.arange(len(candidates)) - np.repeat(np.cumsum(held) - held, held)
    return np.sort(candidates[order[rank < np.repeat(wanted, held)]])


def _replacements(
    masking: Masking,
    vocabulary: Vocabulary,
    ids: Int[np.ndarray, " chosen"],
    owners: UInt64[np.ndarray, " chosen"],
    streams: Int[np.ndarray, " chosen"],
) -> Int[np.ndarray, " chosen"]:
    """What stands at the selected tokens: the mask token, a random one, or the token itself."""
    action = uniform(draw(owners, streams + _ACTION))
    drawn = draw(owners, streams + _RANDOM)
    if masking.random_ids == "any":
        random = below(drawn, vocabulary.size)
    else:
        random = vocabulary.ordinary[below(drawn, len(vocabulary.ordinary))]
    kept_or_random = np.where(action < masking.mask + masking.random, random, ids)
    return np.where(action < masking.mask, vocabulary.mask_id, kept_or_random)
