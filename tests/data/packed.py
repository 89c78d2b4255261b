"""Packed text to mask, over a vocabulary of 1,000 ids: 5 special, 595 that begin a word, 400 that go on with one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bothways.data.masking import Masked, Masking, mask_tokens
from bothways.data.vocabulary import Vocabulary, WordTable

_IDS = np.arange(1000)
VOCABULARY = Vocabulary(
    1000,
    4,
    frozenset(range(5)),
    words=WordTable(continues=_IDS >= 600, closes=_IDS < 5),
    counts=np.where(_IDS % 2 == 0, 10, 1000),
)


@dataclass(frozen=True)
class Text:
    """Packed sequences [CLS] ... [SEP] over an ordinary vocabulary."""

    ids: np.ndarray
    lengths: np.ndarray
    samples: np.ndarray

    def masked(self, masking: Masking, seed: int = 0, epoch: int = 0) -> Masked:
        return mask_tokens(masking, VOCABULARY, self.ids, self.lengths, self.samples, seed, epoch)

    @property
    def words(self) -> np.ndarray:
        """The number of each token's word in the text."""
        return np.cumsum((self.ids < 600) | np.concatenate([[True], self.ids[:-1] < 5])) - 1

    @property
    def sequences(self) -> np.ndarray:
        """The number of each token's sequence."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


def text(lengths: list[int], samples: list[int] | None = None, ids_of: int = 0) -> Text:
    """Each sequence's ids are a function of its sample number."""
    samples = list(range(len(lengths))) if samples is None else samples
    rows = []
    for length, sample in zip(lengths, samples, strict=True):
        row = np.random.default_rng([ids_of, sample]).integers(5, 1000, length)
        row[0], row[-1] = 2, 3
        rows.append(row)
    return Text(np.concatenate(rows), np.array(lengths), np.array(samples))


def inside(successes: int, trials: int, share: float) -> bool:
    """Within the 99.9 % interval of a binomial (normal approximation, 3.29 standard deviations)."""
    return abs(successes - trials * share) <= 3.2905 * np.sqrt(trials * share * (1 - share)) + 0.5


def per_sequence(corpus: Text, masked: Masked) -> np.ndarray:
    """How many tokens of each sequence are selected."""
    return np.bincount(corpus.sequences[masked.positions], minlength=len(corpus.lengths))


def selected(corpus: Text, masked: Masked) -> np.ndarray:
    """Whether each token is selected."""
    chosen = np.zeros(len(corpus.ids), dtype=bool)
    chosen[masked.positions] = True
    return chosen
