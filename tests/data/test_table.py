"""Labelled tables: texts, labels and lengths, and nothing cut unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothways.data.rows import Csv, open_table
from bothways.data.table import Contrast, LabelledRows, SingleText, TableData, TextPair, read_labelled
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError


def read(folder: Path, content: str, columns: SingleText | TextPair | Contrast, name: str = "a.csv") -> LabelledRows:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return read_labelled(open_table(path), columns)


def test_single_texts_with_classes(tmp_path: Path, letters: Tokenizer) -> None:
    rows = read(tmp_path, "text,label\na b,yes\nc,no\n,yes\n", SingleText())
    assert rows.classes() == ("no", "yes")
    data = TableData(rows, letters, max_length=8, labels=rows.class_numbers(rows.classes()))
    assert [sample.sequences[0].tolist() for sample in map(data.__getitem__, range(3))] == [[2, 5, 6, 3], [2, 7, 3], [2, 3]]
    assert [data[i].label for i in range(3)] == [1, 0, 1]
    assert [data[i].id for i in range(3)] == [0, 1, 2]
    assert (data.lengths.tolist(), len(data), data.cut) == ([4, 3, 2], 3, 0)
    assert data[0].types is None


def test_pairs_have_token_types(tmp_path: Path, letters: Tokenizer) -> None:
    rows = read(tmp_path, "first,second,label\na b,c,0.5\n", TextPair())
    sample = TableData(rows, letters, max_length=8, labels=rows.scores())[0]
    assert sample.sequences[0].tolist() == [2, 5, 6, 3, 7, 3]
    assert sample.types is not None
    assert sample.types[0].tolist() == [0, 0, 0, 0, 1, 1]
    assert sample.label == 0.5


def test_contrast_keeps_its_texts_apart(tmp_path: Path, letters: Tokenizer) -> None:
    rows = read(tmp_path, "anchor,positive,n1,n2\na,b c,d,e f g\n", Contrast(negatives=("n1", "n2")))
    data = TableData(rows, letters, max_length=8)
    assert [ids.tolist() for ids in data[0].sequences] == [[2, 5, 3], [2, 6, 7, 3], [2, 8, 3], [2, 9, 10, 11, 3]]
    assert data.lengths.tolist() == [3 + 4 + 3 + 5]


def test_classes_sort_as_numbers_where_they_are(tmp_path: Path) -> None:
    assert read(tmp_path, "text,label\na,10\nb,9\nc,-1\n", SingleText()).classes() == ("-1", "9", "10")
    assert read(tmp_path, "text,label\na,10\nb,9\nc,x\n", SingleText()).classes() == ("10", "9", "x")
    assert read(tmp_path, '{"text": "a", "label": 2}\n{"text": "b", "label": 1}\n', SingleText(), "a.jsonl").classes() == (
        "1",
        "2",
    )


def test_a_label_unseen_in_training_is_refused(tmp_path: Path) -> None:
    rows = read(tmp_path, "text,label\na,yes\nb,maybe\n", SingleText())
    with pytest.raises(InputError, match=r"a.csv:3: label 'maybe' was not seen in training; the labels are no, yes"):
        rows.class_numbers(("no", "yes"))
    with pytest.raises(InputError, match="the labels are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"):
        rows.class_numbers([str(i) for i in range(12)])


def test_bad_labels_and_texts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a.csv:2: no label in column 'label'"):
        read(tmp_path, "text,label\na,\n", SingleText())
    with pytest.raises(InputError, match="no column 'label'; the columns there are: text"):
        read(tmp_path, "text\na\n", SingleText())
    with pytest.raises(InputError, match=r"a.jsonl:1: column 'text' holds int, not text"):
        read(tmp_path, '{"text": 1, "label": "x"}\n', SingleText(), "a.jsonl")
    with pytest.raises(InputError, match=r"a.csv: no rows"):
        read(tmp_path, "text,label\n", SingleText())
    for value, kind in (("NaN", "nan"), ("-Infinity", "-inf"), ("[1]", "list"), ('{"a": 1}', "dict")):
        with pytest.raises(InputError, match=rf"a.jsonl:2: column 'label' holds {kind}, which is no label; a label is text or"):
            read(tmp_path, '{"text": "", "label": 1}\n{"text": "", "label": ' + value + "}\n", SingleText(), "a.jsonl")
    for value in ("high", "nan", "inf"):
        with pytest.raises(InputError, match=f"a.csv:2: label '{value}' is not a number"):
            read(tmp_path, f"text,label\na,{value}\n", SingleText()).scores()


def test_no_label_column_for_prediction(tmp_path: Path, letters: Tokenizer) -> None:
    rows = read(tmp_path, "text\na\n", SingleText(label=None))
    assert TableData(rows, letters, max_length=8)[0].label is None


def test_long_texts_are_refused_or_cut_and_counted(tmp_path: Path, letters: Tokenizer) -> None:
    rows = read(tmp_path, "text,label\na b c d,x\na b c d e,x\n", SingleText())
    with pytest.raises(InputError, match=r"a.csv:3: 7 tokens, over max_length=6; .* overflow=cut"):
        TableData(rows, letters, max_length=6)
    data = TableData(rows, letters, max_length=6, overflow="cut")
    assert (data.cut, data[1].sequences[0].tolist()) == (1, [2, 5, 6, 7, 8, 3])
    with pytest.raises(InputError, match="max_length=2: no room beside 2 special tokens"):
        TableData(rows, letters, max_length=2)


def test_what_a_label_may_be(tmp_path: Path) -> None:
    lines = "".join('{"text": "", "label": ' + label + "}\n" for label in ('"a"', "1", "0.5", "true"))
    assert read(tmp_path, lines, SingleText(), "a.jsonl").labels == ("a", 1, 0.5, True)


def test_a_row_cut_twice_is_one_row(tmp_path: Path, letters: Tokenizer) -> None:
    rows = read(tmp_path, "anchor,positive\na b c,d e f\na,b\n", Contrast())
    assert TableData(rows, letters, max_length=4, overflow="cut").cut == 1


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [("a b c d e", "z", (4, 1)), ("a", "v w x y z", (1, 4)), ("a b c d e", "v w x y z", (3, 2)), ("a b c", "x y z", (3, 2))],
)
def test_pairs_are_cut_at_their_longer_text(
    tmp_path: Path, letters: Tokenizer, first: str, second: str, kept: tuple[int, int]
) -> None:
    rows = read(tmp_path, f"first,second,label\n{first},{second},0\n", TextPair())
    data = TableData(rows, letters, max_length=8, overflow="cut")
    ids, types = data[0].sequences[0], data[0].types
    assert types is not None
    assert (len(ids), data.cut) == (8, 1)
    assert int((types[0] == 0).sum()) - 2 == kept[0]
    assert int((types[0] == 1).sum()) - 1 == kept[1]


def test_real_tables(shared: Path) -> None:
    banking = read_labelled(open_table(shared / "data/classification/banking77/train.csv"), SingleText(label="category"))
    assert (len(banking), len(banking.classes())) == (10003, 77)
    entailment = read_labelled(open_table(shared / "data/glue/RTE/train.tsv"), TextPair(first="sentence1", second="sentence2"))
    assert (len(entailment), entailment.classes()) == (2127, ("entailment", "not_entailment"))
    path = shared / "data/glue/CoLA/train.tsv"
    table = Csv(paths=(str(path),), delimiter="\t", quotes="none", columns=("source", "label", "mark", "text"))
    acceptable = read_labelled(table, SingleText())
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [(label, *texts) for label, texts in zip(acceptable.labels, acceptable.texts, strict=True)] == [
        (line.split("\t")[1], line.split("\t")[3]) for line in lines
    ]
