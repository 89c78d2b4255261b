"""Duplicates, exact and near: what is compared. (How they are found among many files: matching.py.)"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import pydantic
from jaxtyping import UInt32, UInt64

from bothways.config import config
from bothways.data.hashing import keys
from bothways.errors import MissingExtraError

# Words; where a script has no spaces between them, its characters one by one
_TOKENS = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
    r"|[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+"
)
Signature = UInt32[np.ndarray, " hashes"]
Sign = Callable[[str], Signature | None]


@config
class ExactDuplicates:
    """Of documents with the same text, but for white space, keeps the first in the order of the sources."""

    type: Literal["exact_duplicates"] = "exact_duplicates"

    @property
    def hashes(self) -> int:
        return 4

    @property
    def bands(self) -> int:
        return 1

    @property
    def similarity(self) -> float:
        return 1.0

    def open(self, seed: int) -> Sign:
        """What makes a text's signature: its hash, the same for any seed."""

        def sign(text: str) -> Signature:
            digest = hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()
            return np.frombuffer(digest, "<u4")

        return sign


@config
class NearDuplicates:
    """Of documents that share most of their runs of words, keeps the first in the order of the sources (MinHash, Broder 1997).

    Two documents are compared by the Jaccard similarity s of their sets of runs of `words` words, in lower case, without
    punctuation, estimated by `bands` x `rows` hashes. They meet if all hashes of one band agree, with a probability of
    1 - (1 - s^rows)^bands: as it stands over 0.999 for s = 0.8, 0.99 for 0.7, 0.87 for 0.6. A document goes if the
    estimate is at least `similarity` for an earlier one that stays, so copies of copies, ever less alike, are no chain.

    Attributes:
        words: the length of a run. One changed word of a text changes so many runs: with one word in twenty changed, s is 0.75
            for runs of three, 0.63 for runs of five.
    """

    type: Literal["near_duplicates"] = "near_duplicates"
    words: pydantic.PositiveInt = 3
    bands: Annotated[int, pydantic.Field(ge=1, le=256)] = 25
    rows: Annotated[int, pydantic.Field(ge=1, le=64)] = 5
    similarity: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.6

    @property
    def hashes(self) -> int:
        return self.bands * self.rows

    def open(self, seed: int) -> Sign:
        """What makes a text's signature; None for a text without words, which is nobody's duplicate.

        Raises:
            MissingExtraError: rensa is not installed.
        """
        try:
            from rensa import RMinHash  # type: ignore[attr-defined]
        except ImportError:
            raise MissingExtraError("finding near duplicates", "data") from None

        def sign(text: str) -> Signature | None:
            runs = shingles(text, self.words)
            if not runs:
                return None
            minhash = RMinHash(num_perm=self.hashes, seed=seed)
            minhash.update(runs)
            return np.array(minhash.digest(), np.uint32)

        return sign


def shingles(text: str, words: int) -> list[str]:
    """The runs of so many words of a text, each once, in lower case and without punctuation; a shorter text is one run."""
    tokens = _TOKENS.findall(text.lower())
    if not tokens:
        return []
    return list(dict.fromkeys(" ".join(tokens[i : i + words]) for i in range(max(len(tokens) - words + 1, 1))))


def band_keys(signatures: UInt32[np.ndarray, "documents hashes"], bands: int) -> UInt64[np.ndarray, "documents bands"]:
    """A key of 64 bits for each band of each signature: equal bands have equal keys."""
    documents, hashes = signatures.shape
    rows = signatures.reshape(documents, bands, hashes // bands)
    folded = np.zeros((documents, bands), np.uint64)
    for row in range(rows.shape[2]):
        folded = keys(0, items=(folded ^ rows[:, :, row]).reshape(-1).view(np.int64)).reshape(documents, bands)
    return folded
