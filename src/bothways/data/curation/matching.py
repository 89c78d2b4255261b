"""Finding duplicates among all documents: which meet in a band, and which are so alike to an earlier one that they go.

Three stages, each a function of the files of the one before: bands are searched one by one, in parallel; then documents that
met are compared in the order of the sources; then each part drops its own. What is found does not depend on processes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt64

from bothways.data.curation.store import Signed, read_band, read_signed, whole, write_text

Meetings = Int[np.ndarray, "meetings 2"]


def match_band(files: Sequence[Path], band: int, out: Path) -> None:
    """Write which rows share a key in a band."""
    found = read_band(files, band)
    meetings = meet(found.keys, found.rows)
    with whole(out) as temporary, temporary.open("wb") as file:
        np.save(file, meetings)


def meet(keys: UInt64[np.ndarray, " rows"], rows: Int[np.ndarray, " rows"]) -> Meetings:
    """Each row whose key others have too, with a number for that key."""
    _, numbers, counts = np.unique(keys, return_inverse=True, return_counts=True)
    shared = counts[numbers] > 1
    return np.stack([rows[shared], numbers[shared].astype(np.int64)], axis=1)


def join(signatures: Sequence[Path], bands: Sequence[Path], similarity: float, folder: Path) -> None:
    """Write, for each part, which of its rows are duplicates, and where the document is that stays in the place of each."""
    found, start = [], 0
    for file in bands:
        meetings = np.load(file, allow_pickle=False)
        found.append(meetings + np.array([0, start]))
        start += int(meetings[:, 1].max(initial=-1)) + 1
    meetings = np.concatenate(found)
    rows, local = np.unique(meetings[:, 0], return_inverse=True)
    signed, starts = read_signed(signatures, rows)
    kept = firsts(signed, np.stack([local, meetings[:, 1]], axis=1), similarity)
    gone = np.flatnonzero(kept != np.arange(len(kept)))
    for part in range(len(signatures)):
        mine = gone[(rows[gone] >= starts[part]) & (rows[gone] < starts[part + 1])]
        drops = {int(rows[one] - starts[part]): signed.wheres[kept[one]] for one in mine}
        write_text(folder / f"{part:06d}.json", json.dumps(drops, ensure_ascii=False))


def read_drops(file: Path) -> dict[int, str]:
    """The rows of a part that are duplicates, each with where the document is that stays."""
    return {int(row): where for row, where in json.loads(file.read_text(encoding="utf-8")).items()}


def firsts(signed: Signed, meetings: Meetings, similarity: float) -> Int[np.ndarray, " documents"]:
    """For each document the most alike of the earlier ones that stay, or itself where none is alike enough.

    Documents are taken in the order of the sources. One goes only if one that stays is alike, so no chain of copies of
    copies leads from a document to one that is not like it.

    Args:
        meetings: documents and the numbers of what they share; only those that share a number are compared.
        similarity: the share of hashes that must agree, the estimate of their similarity.
    """
    kept = np.arange(len(signed.orders))
    ranked = meetings[np.lexsort((meetings[:, 1], signed.orders[meetings[:, 0]]))]
    begins = np.flatnonzero(np.diff(ranked[:, 0], prepend=-1))
    ends = np.append(begins[1:], len(ranked))[: len(begins)]
    stay: dict[int, list[int]] = {}
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        one, shared = int(ranked[begin, 0]), ranked[begin:end, 1].tolist()
        others = list(dict.fromkeys(other for number in shared for other in stay.get(number, ())))
        if others:
            others.sort(key=lambda other: signed.orders[other])
            agree = (signed.signatures[others] == signed.signatures[one]).mean(axis=1)
            best = int(agree.argmax())
            if agree[best] >= similarity:
                kept[one] = others[best]
                continue
        for number in shared:
            stay.setdefault(number, []).append(one)
    return kept
