"""Rows of localisation and repair as samples: the first piece of each name, and what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bothways.data.code.examples import pointed
from bothways.data.code.modules import Module, functions, parse
from bothways.data.code.pointers import CANDIDATE, ERROR, TARGET, PointedRow, PointerData, read_pointed
from bothways.data.rows import JsonLines
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import ByteLevelBpe, train_tokenizer
from bothways.errors import InputError

SOURCE = "def f(first_one, second, é=1):\n    third = first_one + second\n    return second - third + é\n"
(FUNCTION,) = functions(Module("a.py", SOURCE, parse(SOURCE)))
ROW = PointedRow("a:1", " a = bb + ccc\n", 5, (10,), (1, 5, 10))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Pieces of a byte each, so that every name has several."""
    return train_tokenizer(ByteLevelBpe(vocab_size=262, specials="bert"), ["a b"])


def table(path: Path, *rows: dict[str, Any]) -> JsonLines:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return JsonLines(paths=(str(path),))


def test_a_row_without_a_bug() -> None:
    row = pointed(FUNCTION, None)
    assert (row["error"], row["targets"]) == (None, [])
    names = [row["function"][place:].split()[0] for place in row["candidates"]]
    assert names == ["first_one", "second", "é", "third", "first_one", "second", "second", "third", "é"]


def test_marks_are_on_the_first_piece_of_a_name(tokenizer: Tokenizer) -> None:
    data = PointerData([ROW], tokenizer, 64)
    (sample,) = (data[i] for i in range(len(data)))
    (ids,), marks = sample.sequences, sample.marks
    assert marks is not None
    assert len(ids) == len(marks) == data.lengths[0]
    text = [tokenizer.backend.id_to_token(int(one)) for one in ids]
    kinds = {place: (text[place], int(marks[place])) for place in np.flatnonzero(marks)}
    assert (marks[0], marks[-1], text[0], text[-1]) == (0, 0, "[CLS]", "[SEP]")
    assert [kind for _, kind in kinds.values()] == [CANDIDATE, CANDIDATE | ERROR, CANDIDATE | TARGET]
    assert [piece.removeprefix("Ġ")[:1] for piece, _ in kinds.values()] == ["a", "b", "c"]


def test_what_is_cut_off(tokenizer: Tokenizer) -> None:
    """A function whose bug, or all of whose repairs, are cut off is left out and counted; others lose their end."""
    clean = PointedRow("a:2", " a = bb + ccc\n", None, (), (1, 5, 10))
    data = PointerData([ROW, clean], tokenizer, 9, "cut")
    assert (len(data), data.left_out, data.cut) == (1, 1, 1)
    with pytest.raises(InputError, match=r"a:1: \d+ tokens, over max_length=9"):
        PointerData([ROW, clean], tokenizer, 9)
    with pytest.raises(InputError, match="no row of 1 has its error within 9 tokens"):
        PointerData([ROW], tokenizer, 9, "cut")


GOOD = {"function": " a = b\n", "error": 5, "targets": [1], "candidates": [1, 5]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"function": 3}, "column 'function' holds int, not text"),
        ({"candidates": [1, 99]}, "column 'candidates' holds no places within the text's 7 characters"),
        ({"targets": "1"}, "column 'targets' holds no places"),
        ({"error": True}, "column 'error' holds no places"),
        ({"candidates": [5]}, "character 1 is an error or a target and no candidate"),
        ({"targets": []}, "an error has targets"),
        ({"error": None}, "an error has targets"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"rows.jsonl:2: {message}"):
        read_pointed(table(tmp_path / "rows.jsonl", GOOD, GOOD | change))


def test_no_rows_and_no_column(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows"):
        read_pointed(_blank(tmp_path))
    with pytest.raises(InputError, match="no column 'error'"):
        read_pointed(table(tmp_path / "rows.jsonl", {"function": " a"}))


def _blank(folder: Path) -> JsonLines:
    (folder / "blank.jsonl").write_text("\n")
    return JsonLines(paths=(str(folder / "blank.jsonl"),))
