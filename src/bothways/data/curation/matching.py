"""Finding duplicates among all documents: which pairs meet in a band, which are alike, and which one of each group stays.

Three stages, each a function of the files of the one before: bands are searched one by one, in parallel; then all pairs are
compared and joined into groups; then each part drops its own. What is found does not depend on the number of processes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt64

from bothways.data.curation.store import Signed, read_band, read_signed, whole, write_text

# Pairs whose signatures are compared in one go
_PAIRS = 1 << 16

Pairs = Int[np.ndarray, "pairs 2"]


def match_band(files: Sequence[Path], band: int, out: Path) -> None:
    """Write the pairs of rows that share a key in a band."""
    found = read_band(files, band)
    pairs = meet(found.keys, found.orders, found.rows)
    with whole(out) as temporary, temporary.open("wb") as file:
        np.save(file, pairs)


def meet(keys: UInt64[np.ndarray, " rows"], orders: UInt64[np.ndarray, " rows"], rows: Int[np.ndarray, " rows"]) -> Pairs:
    """Of the rows with one key, in their order, each with the first of them and with the one before it."""
    ranked = np.lexsort((orders, keys))
    keys, rows = keys[ranked], rows[ranked]
    again = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))[: len(keys)]
    first = begins[np.searchsorted(begins, again, side="right") - 1]
    pairs = np.concatenate([np.stack([rows[first], rows[again]], axis=1), np.stack([rows[again - 1], rows[again]], axis=1)])
    return np.unique(pairs, axis=0)


def join(signatures: Sequence[Path], bands: Sequence[Path], similarity: float, folder: Path) -> None:
    """Write, for each part, which of its rows are duplicates, and where the document is that stays in the place of each."""
    pairs = np.concatenate([np.load(file, allow_pickle=False) for file in bands])
    pairs = np.unique(pairs, axis=0) if len(pairs) else pairs.reshape(0, 2)
    rows = np.unique(pairs)
    signed, starts = read_signed(signatures, rows)
    local = np.searchsorted(rows, pairs)
    kept = groups(local[alike(signed, local, similarity)], signed.orders)
    gone = np.flatnonzero(kept != np.arange(len(kept)))
    for part in range(len(signatures)):
        mine = gone[(rows[gone] >= starts[part]) & (rows[gone] < starts[part + 1])]
        drops = {int(rows[one] - starts[part]): signed.wheres[kept[one]] for one in mine}
        write_text(folder / f"{part:06d}.json", json.dumps(drops, ensure_ascii=False))


def read_drops(file: Path) -> dict[int, str]:
    """The rows of a part that are duplicates, each with where the document is that stays."""
    return {int(row): where for row, where in json.loads(file.read_text(encoding="utf-8")).items()}


def alike(signed: Signed, pairs: Pairs, similarity: float) -> Bool[np.ndarray, " pairs"]:
    """Which pairs agree in at least this share of their hashes, the estimate of their similarity."""
    found = np.zeros(len(pairs), bool)
    for start in range(0, len(pairs), _PAIRS):
        left, right = pairs[start : start + _PAIRS].T
        found[start : start + _PAIRS] = (signed.signatures[left] == signed.signatures[right]).mean(axis=1) >= similarity
    return found


def groups(pairs: Pairs, orders: UInt64[np.ndarray, " documents"]) -> Int[np.ndarray, " documents"]:
    """For each document, the first (by `orders`) of those that pairs link it with, over others or not; itself where none do."""
    root = np.arange(len(orders))

    def find(one: int) -> int:
        while root[one] != one:
            root[one] = root[root[one]]
            one = int(root[one])
        return one

    for left, right in pairs.tolist():
        a, b = find(left), find(right)
        if a != b:
            a, b = (a, b) if orders[a] < orders[b] else (b, a)
            root[b] = a
    return np.array([find(one) for one in range(len(root))], np.int64)
