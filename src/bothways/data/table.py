"""Labelled tables for fine-tuning: rows of texts and a label, as samples in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pydantic

from bothways.config import config
from bothways.data.rows import Csv, JsonLines, Parquet, read_rows
from bothways.data.sample import Sample
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError

Overflow = Literal["error", "cut"]


@config
class SingleText:
    """One text a row; `label` is the column of a class or a score, None for texts to predict."""

    type: Literal["single"] = "single"
    text: str = "text"
    label: str | None = "label"


@config
class TextPair:
    """Two texts a row, read together as one sequence."""

    type: Literal["pair"] = "pair"
    first: str = "first"
    second: str = "second"
    label: str | None = "label"


@config
class Contrast:
    """A text, one that belongs to it, and any number that do not; each a sequence of its own."""

    type: Literal["contrast"] = "contrast"
    anchor: str = "anchor"
    positive: str = "positive"
    negatives: tuple[str, ...] = ()


Columns = Annotated[SingleText | TextPair | Contrast, pydantic.Field(discriminator="type")]


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """The texts of each row, its label as it stands in the table (None without a label column), and its place."""

    columns: SingleText | TextPair | Contrast
    texts: tuple[tuple[str, ...], ...]
    labels: tuple[Any, ...]
    where: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def classes(self) -> tuple[str, ...]:
        """The distinct labels, sorted: as numbers where all are whole numbers, else as text."""
        names = {str(label) for label in self.labels}
        numeric = all(name.removeprefix("-").isdecimal() for name in names)
        return tuple(sorted(names, key=lambda name: (int(name), name) if numeric else (0, name)))

    def class_numbers(self, classes: Sequence[str]) -> list[int]:
        """Each row's label as its place in `classes`. Raises InputError for a label that is not there."""
        numbers = {name: number for number, name in enumerate(classes)}
        for label, where in zip(self.labels, self.where, strict=True):
            if str(label) not in numbers:
                known = ", ".join(classes[:10]) + (f" and {len(classes) - 10} more" if len(classes) > 10 else "")
                raise InputError(f"{where}: label '{label}' was not seen in training; the labels are {known}")
        return [numbers[str(label)] for label in self.labels]

    def scores(self) -> list[float]:
        """Each row's label as a number. Raises InputError for one that is not."""
        return [_score(label, where) for label, where in zip(self.labels, self.where, strict=True)]


def read_labelled(table: JsonLines | Csv | Parquet, columns: SingleText | TextPair | Contrast) -> LabelledRows:
    """Read a table's texts and labels.

    Raises:
        InputError: a missing column, a text that is not text, a label that is missing, no text or no number, or no rows.
    """
    names, label = _names(columns)
    texts, labels, places = [], [], []
    for where, values in read_rows(table, [*names, label] if label is not None else names):
        for name, value in zip(names, values, strict=False):
            if not isinstance(value, str):
                raise InputError(f"{where}: column '{name}' holds {type(value).__name__}, not text")
        if label is not None:
            _check_label(values[-1], f"column '{label}'", where)
        texts.append(values[: len(names)])
        labels.append(values[-1] if label is not None else None)
        places.append(where)
    if not texts:
        raise InputError(f"{', '.join(table.paths)}: no rows")
    return LabelledRows(columns, tuple(texts), tuple(labels), tuple(places))


class TableData:
    """Rows as samples: a data set in memory.

    Attributes:
        lengths: int64 [samples], the tokens of all sequences of a sample.
        cut: how many rows had a sequence longer than `max_length`, which was cut (0 under `overflow="error"`).
    """

    def __init__(
        self,
        rows: LabelledRows,
        tokenizer: Tokenizer,
        max_length: int,
        labels: Sequence[int | float] | None = None,
        overflow: Overflow = "error",
    ) -> None:
        """Tokenise the rows; `labels` are class numbers or scores, one a row.

        `max_length` counts special tokens. A pair is cut token by token at the end of the longer of its texts.

        Raises:
            InputError: `max_length` leaves no room, or a sequence is longer and `overflow` is `error`.
        """
        pair = isinstance(rows.columns, TextPair)
        room = max_length - (tokenizer.specials_per_pair if pair else tokenizer.specials_per_sequence)
        if room < 1:
            raise InputError(f"max_length={max_length}: no room beside {max_length - room} special tokens; raise it")
        self.cut = 0
        self._samples: list[Sample] = []
        texts = iter(tokenizer.encode([text for row in rows.texts for text in row], specials=False))
        for number, (row, where) in enumerate(zip(rows.texts, rows.where, strict=True)):
            parts = [next(texts) for _ in row]
            groups = [parts] if pair else [[part] for part in parts]
            fitted = [cut_to(group, room) for group in groups]
            over = any(new is not old for old, new in zip(groups, fitted, strict=True))
            if over and overflow == "error":
                tokens = max(sum(map(len, group)) for group in groups) + max_length - room
                raise InputError(
                    f"{where}: {tokens} tokens, over max_length={max_length}; shorten it, raise that, or set overflow=cut"
                )
            self.cut += over
            self._samples.append(_sample(number, fitted, tokenizer, None if labels is None else labels[number]))
        self.lengths = np.array([sum(map(len, sample.sequences)) for sample in self._samples], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Sample:
        return self._samples[number]


def _names(columns: SingleText | TextPair | Contrast) -> tuple[list[str], str | None]:
    """The columns of texts, and that of the label."""
    if isinstance(columns, SingleText):
        return [columns.text], columns.label
    if isinstance(columns, TextPair):
        return [columns.first, columns.second], columns.label
    return [columns.anchor, columns.positive, *columns.negatives], None


def _check_label(label: Any, column: str, where: str) -> None:
    if label is None or label == "":
        raise InputError(f"{where}: no label in {column}")
    if not isinstance(label, str | int | float):
        raise InputError(f"{where}: {column} holds {type(label).__name__}, which is no label; a label is text or a number")
    if isinstance(label, float) and not math.isfinite(label):
        raise InputError(f"{where}: {column} holds {label}, which is no label; a label is text or a finite number")


def _score(label: Any, where: str) -> float:
    try:
        score = float(label)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise InputError(f"{where}: label '{label}' is not a number; regression needs one")
    return score


def cut_to(parts: list[np.ndarray], room: int) -> list[np.ndarray]:
    """The same list where it fits, else a new one, cut from the end of its longest part."""
    excess = sum(map(len, parts)) - room
    if excess <= 0:
        return parts
    if len(parts) == 1:
        return [parts[0][:room]]
    first, second = map(len, parts)
    kept = min(first, max(room - second, -(-room // 2)))
    return [parts[0][:kept], parts[1][: room - kept]]


def _sample(number: int, groups: list[list[np.ndarray]], tokenizer: Tokenizer, label: int | float | None) -> Sample:
    if len(groups[0]) == 2:
        ids, types = tokenizer.join(*groups[0])
        return Sample(number, (ids,), (types,), label)
    return Sample(number, tuple(tokenizer.wrap(group[0]) for group in groups), None, label)
