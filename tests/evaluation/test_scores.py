"""Classification, correlation and similarity scores by hand; tables."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
import rich.console
from tests.retrieval.toy import Fixed

from bothways.errors import InputError
from bothways.evaluation.classification import classification_scores, correlation_scores
from bothways.evaluation.sts import evaluate_sts, read_sts, sts_spearman
from bothways.evaluation.table import Table, to_json, to_rich, to_text

STS = "genre\tfile\t2012\t1\t{}\t{}\t{}\tsource\n"


def test_classification_by_hand() -> None:
    """F1 is 1/2 for a, 4/5 for b, 0 for c, which is never predicted; MCC is (15 - 10) / sqrt(12 * 16)."""
    found = classification_scores(list("aabbc"), list("abbba"))
    assert found == pytest.approx({"accuracy": 3 / 5, "macro_f1": 1.3 / 3, "mcc": 5 / 192**0.5})


def test_a_class_that_only_the_prediction_has_counts_in_the_mean() -> None:
    assert classification_scores([0, 0], [0, 7])["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_constant_predictions() -> None:
    assert classification_scores([1, 1], [1, 1]) == {"accuracy": 1, "macro_f1": 1, "mcc": 0}
    assert classification_scores([0, 1], [1, 1])["mcc"] == 0
    assert all(math.isnan(value) for value in correlation_scores([1, 2], [3, 3]).values())


def test_correlations_by_hand() -> None:
    """Ranks 1 3 2 4 against 1 2 3 4: 1 - 6 * 2 / (4 * 15). Squares keep the ranks, not the line."""
    assert correlation_scores([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx({"pearson": 0.8, "spearman": 0.8})
    squares = correlation_scores([1, 2, 3], [1, 4, 9])
    assert squares == pytest.approx({"pearson": 8 / (2 * 98 / 3) ** 0.5, "spearman": 1})


def test_lists_that_do_not_match() -> None:
    with pytest.raises(InputError, match="2 true and 1 predicted"):
        classification_scores([1, 2], [1])
    with pytest.raises(InputError, match="0 true and 0 predicted"):
        classification_scores([], [])
    with pytest.raises(InputError, match="at least 2"):
        correlation_scores([1], [1])
    with pytest.raises(InputError, match="finite"):
        correlation_scores([1, 2], [1, float("nan")])


def test_sts(tmp_path: Path) -> None:
    """Cosines 1, 0 and -1 against grades 5, 1, 2: ranks 3 2 1 against 3 1 2. Lengths of vectors do not matter."""
    file = tmp_path / "pairs.csv"
    file.write_text(STS.format("5.0", "a", 'same "a') + STS.format(1, "a", "b") + STS.format(2, "a", "not a"))
    pairs = read_sts(file)
    assert (pairs.first, pairs.second, pairs.grades.tolist()) == (("a",) * 3, ('same "a', "b", "not a"), [5, 1, 2])
    embedder = Fixed({"a": [1, 0], 'same "a': [9, 0], "b": [0, 5], "not a": [-7, 0]})
    assert sts_spearman(embedder, pairs) == pytest.approx(0.5)
    table = evaluate_sts(pairs, [embedder])
    # word counts: 1 / sqrt 2, 0, 1 / sqrt 2, so ranks 2.5 1 2.5
    assert [list(row) for row in table.rows] == [["bag of words", pytest.approx(3**0.5 / 2)], ["fixed", pytest.approx(0.5)]]


FAULTS = [("a\tb\n", "2 fields"), (STS.format("x", "a", "b"), "'x' is no number"), ("\n", "1 fields")]


@pytest.mark.parametrize(("text", "message"), FAULTS)
def test_faulty_sts(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sts.csv").write_text(STS.format(1, "a", "b") + text)
    with pytest.raises(InputError, match=rf"sts\.csv:2: .*{message}"):
        read_sts(tmp_path / "sts.csv")


def test_the_sts_benchmark(shared: Path) -> None:
    pairs = read_sts(shared / "data/glue/STS-B/original/sts-test.csv")
    assert len(pairs.first) == len(pairs.second) == len(pairs.grades) == 1379
    assert (pairs.first[0], pairs.second[0]) == ("A girl is styling her hair.", "A girl is brushing her hair.")
    assert pairs.grades[0] == 2.5
    assert (pairs.grades.min(), pairs.grades.max()) == (0, 5)


TABLE = Table("A [bold] title", ("system", "score", "count"), (("[MASK]", 0.123456, 12345), ("none", float("nan"), 0)), "a note")


def test_table_in_the_terminal() -> None:
    out = io.StringIO()
    rich.console.Console(file=out, width=80).print(to_rich(TABLE))
    text = out.getvalue()
    assert all(part in text for part in ("A [bold] title", "[MASK]", "0.1235", "12,345", "a note"))
    assert [list(row) for row in to_text(TABLE).rows] == [["[MASK]", "0.1235", "12,345"], ["none", "-", "0"]]


def test_table_as_json() -> None:
    tree = json.loads(json.dumps(to_json(TABLE), allow_nan=False))
    assert tree["rows"] == [["[MASK]", 0.123456, 12345], ["none", None, 0]]
    assert (tree["title"], tree["columns"], tree["note"]) == ("A [bold] title", ["system", "score", "count"], "a note")
