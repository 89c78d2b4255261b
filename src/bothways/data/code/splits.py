"""Which files are learned from and which are held out; and which functions go because another one is nearly the same."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from bothways.config import config
from bothways.data.code.shapes import shape
from bothways.data.curation.duplicates import NearDuplicates, band_keys
from bothways.data.curation.matching import firsts, meet
from bothways.data.curation.store import Signed
from bothways.data.masking import Share
from bothways.errors import InputError

Part = Literal["train", "dev", "test"]
# Those held out come first: of two that are alike, the one learned from goes
PARTS: tuple[Part, ...] = ("test", "dev", "train")


@config
class Split:
    """Shares of the files, and what makes two of them (or two functions) one too many; a file is of one part, whole."""

    dev: Share = 0.1
    test: Share = 0.1
    duplicates: NearDuplicates = NearDuplicates()
    seed: int = 0


def divided(names: Iterable[str], split: Split) -> dict[str, Part]:
    """The part of each file, by a hash of its name: at least one file each.

    Raises:
        InputError: fewer than three files.
    """
    ordered = sorted(set(names), key=lambda name: hashlib.blake2b(f"{split.seed} {name}".encode()).digest())
    if len(ordered) < len(PARTS):
        raise InputError(f"{len(ordered)} files of Python: too few to learn from some and hold out others; give three or more")
    test, dev = (max(math.floor(share * len(ordered)), 1) for share in (split.test, split.dev))
    if test + dev >= len(ordered):
        raise InputError(f"split.dev and split.test: nothing is left to learn from, of {len(ordered)} files")
    sizes: tuple[tuple[Part, int], ...] = (("test", test), ("dev", dev), ("train", len(ordered) - test - dev))
    return dict(zip(ordered, (part for part, size in sizes for _ in range(size)), strict=True))


def originals(texts: Sequence[str], names: Sequence[str], duplicates: NearDuplicates, seed: int) -> list[int]:
    """The numbers of the texts that are not nearly the same as an earlier one that stays. Texts without words stay.

    Raises:
        MissingExtraError: as `NearDuplicates.open`.
    """
    sign = duplicates.open(seed)
    signatures = [sign(text) for text in texts]
    signed = [number for number, one in enumerate(signatures) if one is not None]
    if not signed:
        return list(range(len(texts)))
    table = np.stack([one for one in signatures if one is not None])
    bands = band_keys(table, duplicates.bands)
    rows = np.arange(len(signed))
    meetings, start = [], 0
    for band in range(duplicates.bands):
        met = meet(bands[:, band], rows)
        meetings.append(met + np.array([0, start]))
        start += int(met[:, 1].max(initial=-1)) + 1
    known = Signed(table, np.arange(len(signed), dtype=np.uint64), tuple(names[number] for number in signed))
    kept = firsts(known, np.concatenate(meetings), duplicates.similarity)
    gone = {signed[number] for number in np.flatnonzero(kept != rows)}
    return [number for number in range(len(texts)) if number not in gone]


def unshared(sources: Sequence[str], parts: Sequence[Part]) -> list[int]:
    """The numbers of the functions whose shape no function of an earlier part has (`shapes.shape`); parts come one by one.

    It finds what `originals` cannot: names are most of a short function's words. Within a part copies stay, as they give nothing
    away; and there is no shortest length, as of what `CodeTasks.shortest` leaves few go (1% of the standard library's functions).
    """
    first: dict[bytes, Part] = {}
    return [
        number
        for number, (source, part) in enumerate(zip(sources, parts, strict=True))
        if first.setdefault(shape(source), part) == part
    ]
