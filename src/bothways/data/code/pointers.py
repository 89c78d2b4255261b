"""Rows of localisation and repair as samples: which tokens are candidates, which is the error, which are right in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from bothways.data.rows import Csv, JsonLines, Parquet, read_rows
from bothways.data.sample import Sample
from bothways.data.table import Overflow
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError

# What a token is, as bits
CANDIDATE, TARGET, ERROR = 1, 2, 4
_COLUMNS = ("function", "error", "targets", "candidates")


@dataclass(frozen=True)
class PointedRow:
    """A function's text, and places in it (characters from 0); `error` None: it has no bug."""

    where: str
    text: str
    error: int | None
    targets: tuple[int, ...]
    candidates: tuple[int, ...]


def read_pointed(table: JsonLines | Csv | Parquet) -> list[PointedRow]:
    """The rows of a table of `variable_misuse_repair`.

    Raises:
        InputError: a missing column, a place outside the text, an error or a target that is no candidate, targets without an
            error or an error without targets, or no rows.
    """
    rows = [_row(where, *values) for where, values in read_rows(table, _COLUMNS)]
    if not rows:
        raise InputError(f"{', '.join(table.paths)}: no rows")
    return rows


class PointerData:
    """Rows as samples whose `marks` have CANDIDATE, TARGET and ERROR bits: of each name the first token alone, as published.

    Attributes:
        lengths: int64 [samples], special tokens included.
        left_out: rows whose error, or all of whose targets, stand behind `max_length` (0 under `overflow="error"`).
        cut: rows that lost their end.
    """

    def __init__(self, rows: Sequence[PointedRow], tokenizer: Tokenizer, max_length: int, overflow: Overflow = "error") -> None:
        """Tokenise the rows; `max_length` counts special tokens.

        Raises:
            InputError: a row is longer and `overflow` is `error`; no row is left; a tokenizer that begins no token where a name
                begins.
        """
        self.cut = self.left_out = 0
        self._samples: list[Sample] = []
        encodings = tokenizer.backend.encode_batch([row.text for row in rows], add_special_tokens=False)
        room = max_length - tokenizer.specials_per_sequence
        for row, encoding in zip(rows, encodings, strict=True):
            over = len(encoding.ids) > room
            if over and overflow == "error":
                raise InputError(
                    f"{row.where}: {len(encoding.ids) + max_length - room} tokens, over max_length={max_length}; "
                    "build tasks of shorter functions, raise that, or set overflow=cut"
                )
            marks = _marks(row, encoding.offsets)[:room]
            if row.error is not None and not ((marks & ERROR).any() and (marks & TARGET).any()):
                self.left_out += 1
                continue
            self.cut += over
            ids = tokenizer.wrap(np.array(encoding.ids[:room], dtype=np.int32))
            around = np.zeros(len(ids), dtype=np.uint8)
            around[_before(tokenizer) :][: len(marks)] = marks
            self._samples.append(Sample(len(self._samples), (ids,), marks=around))
        if not self._samples:
            raise InputError(
                f"no row of {len(rows):,} has its error within {max_length} tokens; build tasks of shorter functions"
            )
        self.lengths = np.array([len(sample.sequences[0]) for sample in self._samples], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Sample:
        return self._samples[number]


def _marks(row: PointedRow, offsets: Sequence[tuple[int, int]]) -> UInt8[np.ndarray, " tokens"]:
    """The bits of each token: those of the name whose first character it holds."""
    marks = np.zeros(len(offsets), dtype=np.uint8)
    ends = np.array([end for _, end in offsets])
    bits = [(row.candidates, CANDIDATE), (row.targets, TARGET), (() if row.error is None else (row.error,), ERROR)]
    for places, bit in bits:
        for place in places:
            token = int(np.searchsorted(ends, place, side="right"))
            if token == len(offsets) or not offsets[token][0] <= place:
                raise InputError(f"{row.where}: the tokenizer has no token at character {place}; take a byte-level one")
            marks[token] |= bit
    return marks


def _before(tokenizer: Tokenizer) -> int:
    """How many special tokens come before a sequence."""
    return len(tokenizer.template.before)


def _row(where: str, text: Any, error: Any, targets: Any, candidates: Any) -> PointedRow:
    if not isinstance(text, str):
        raise InputError(f"{where}: column 'function' holds {type(text).__name__}, not text")
    places = [("targets", targets), ("candidates", candidates), ("error", [] if error is None else [error])]
    for name, found in places:
        if not isinstance(found, list) or not all(type(one) is int and 0 <= one < len(text) for one in found):
            raise InputError(f"{where}: column '{name}' holds no places within the text's {len(text)} characters")
    stray = {*targets, *([] if error is None else [error])} - set(candidates)
    if stray:
        raise InputError(f"{where}: character {min(stray)} is an error or a target and no candidate")
    if bool(targets) != (error is not None):
        raise InputError(f"{where}: an error has targets, and a function without one has none")
    return PointedRow(where, text, error, tuple(targets), tuple(candidates))
