"""Reading text: what is found, what is left out, and one clear line for everything that cannot be read."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from bothways.config import from_json, to_json
from bothways.data import reading
from bothways.data.rows import Csv, JsonLines, Parquet, open_table
from bothways.data.source import Column, TextFiles, list_source, open_source, read_documents
from bothways.errors import InputError


def documents(source: TextFiles | Column) -> list[tuple[str, str]]:
    return [(document.text, document.where) for document in read_documents(source)]


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def refused(source: TextFiles | Column) -> str:
    with pytest.raises(InputError) as caught:
        documents(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------ text


def test_a_file_whole_by_paragraph_and_by_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\ntwo\n\n \nthree\r\n")
    assert documents(TextFiles(paths=(path,))) == [("one\ntwo\n\n \nthree\n", path)]
    assert documents(TextFiles(paths=(path,), split="paragraph")) == [("one\ntwo", f"{path}:1"), ("three", f"{path}:5")]
    lines = [("one", f"{path}:1"), ("two", f"{path}:2"), ("three", f"{path}:5")]
    assert documents(TextFiles(paths=(path,), split="line")) == lines


def test_a_folder_is_walked_in_order_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "b.md", "b")
    write(tmp_path / "a" / "z.py", "z")
    write(tmp_path / "a" / "Y.TXT", "y")
    write(tmp_path / "c.rst.gz", gzip.compress(b"c"))
    write(tmp_path / "picture.png", b"\x89PNG")
    write(tmp_path / "a" / "more.png", b"\x89PNG")
    write(tmp_path / "Makefile", "all:")
    write(tmp_path / "empty.txt", "")
    write(tmp_path / ".git" / "hidden.txt", "no")
    write(tmp_path / "a" / ".hidden.txt", "no")
    source = TextFiles(paths=(str(tmp_path),))
    assert [text for text, _ in documents(source)] == ["b", "c", "y", "z"]
    listing = list_source(source)
    assert (listing.skipped, listing.empty, listing.hidden) == ({".png": 2, "": 1}, 1, 2)
    assert str(listing) == "4 files; 3 skipped (2 .png, 1 without suffix); 1 empty; 2 hidden"


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert documents(TextFiles(paths=(write(tmp_path / "a.txt", "\ufefftext"),)))[0][0] == "text"


def test_another_encoding_is_read_when_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "Gänse füttern".encode("latin-1"))
    assert documents(TextFiles(paths=(path,), encoding="latin-1"))[0][0] == "Gänse füttern"


GERMAN = "Die Gänse füttern wir täglich. Über den Flüssen hängen Nebel, und die Wölfe heulen schön.\n" * 20


@pytest.mark.parametrize("split", ["whole", "line"])
def test_wrong_encoding_names_the_byte(tmp_path: Path, split: str) -> None:
    ahead = ("plain text\n" * 200_000).encode()  # more than one block of reading
    path = write(tmp_path / "a.txt", ahead + GERMAN.encode("latin-1"))
    message = refused(TextFiles(paths=(path,), split=split))  # type: ignore[arg-type]
    assert message.startswith(f"{path}: not utf-8 at byte {len(ahead) + 5}")


def test_wrong_encoding_suggests_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", GERMAN.encode("cp1250"))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "charset_normalizer", None)
        assert refused(TextFiles(paths=(path,))).endswith("; set its encoding (pip install 'bothways[data]' for a guess)")
    pytest.importorskip("charset_normalizer")
    assert "it looks like cp125" in refused(TextFiles(paths=(path,)))


def test_a_character_cut_off_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "abcé".encode()[:-1])
    assert "not utf-8 at byte 3" in refused(TextFiles(paths=(path,)))


def test_utf16_is_recognised(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "text".encode("utf-16"))
    assert "set encoding=utf-16" in refused(TextFiles(paths=(path,)))
    assert documents(TextFiles(paths=(path,), encoding="utf-16"))[0][0] == "text"


@pytest.mark.parametrize("split", ["whole", "line"])
def test_binary_files_are_refused(tmp_path: Path, split: str) -> None:
    zeros = write(tmp_path / "zeros.txt", b"text\0more\n")
    assert "a zero byte at character 4" in refused(TextFiles(paths=(zeros,), split=split))  # type: ignore[arg-type]
    program = write(tmp_path / "program.txt", b"\x7fELF\x00\xff\xfe\x00")
    assert f"{program}: not utf-8 at byte 5: a binary file" in refused(TextFiles(paths=(program,), split=split))  # type: ignore[arg-type]


def test_a_fifty_megabyte_line_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", b"x" * 50_000_000)
    for split in ("whole", "paragraph", "line"):
        message = refused(TextFiles(paths=(path,), split=split))  # type: ignore[arg-type]
        assert "over 16,000,000 characters in one text" in message
        assert path in message
    table = write(tmp_path / "a.jsonl", b'{"text": "' + b"x" * 50_000_000 + b'"}')
    assert f"{table}:1: over 16,000,000" in refused(open_source(Path(table)))
    values = write(tmp_path / "a.csv", b"text\n" + b"x" * 50_000_000)
    assert f"{values}:2: over 16,000,000" in refused(open_source(Path(values)))
    # at the limit all is well
    monkeypatch.setattr(reading, "LONGEST", 50_000_000)
    assert len(documents(TextFiles(paths=(path,)))[0][0]) == 50_000_000


@pytest.mark.parametrize("kind", ["text", "column"])
def test_paragraphs_have_a_limit_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    text = "one\n\ntwo\nthree\n"
    if kind == "text":
        source, where = write(tmp_path / "a.txt", text), "3"
    else:
        source, where = str(tmp_path / "a.parquet"), "1:3"
        pyarrow.parquet.write_table(pyarrow.table({"text": [text]}), source)
    monkeypatch.setattr(reading, "LONGEST", 9)
    if kind == "column":
        message = refused(open_source(Path(source)))
        assert message == f"{source}:1: column 'text': over 9 characters in one text; break it up"
        monkeypatch.setattr("bothways.data.rows.check_length", lambda *_: None)
    message = refused(open_source(Path(source), split="paragraph"))
    assert message.startswith(f"{source}:{where}: over 9 characters in one text")
    assert "--set source.split=line (in Python: split='line')" in message
    monkeypatch.setattr(reading, "LONGEST", 10)
    assert len(documents(open_source(Path(source), split="paragraph"))) == 2


def test_a_file_too_long_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", "one\n\ntwo\n")
    monkeypatch.setattr(reading, "LONGEST", 5)
    advice = "split it: --set source.split=paragraph (in Python: split='paragraph')"
    assert refused(TextFiles(paths=(path,))) == f"{path}: over 5 characters in one text; {advice}"
    assert len(documents(TextFiles(paths=(path,), split="paragraph"))) == 2


def test_nothing_there(tmp_path: Path) -> None:
    assert refused(TextFiles(paths=(str(tmp_path / "no.txt"),))) == f"{tmp_path / 'no.txt'}: no such file or folder"
    assert refused(TextFiles(paths=(write(tmp_path / "e.txt", ""),))).endswith("e.txt: the file is empty")
    write(tmp_path / "folder" / "a.png", b"1")
    message = refused(TextFiles(paths=(str(tmp_path / "folder"),)))
    assert "nothing to read (0 files; 1 skipped (1 .png))" in message
    assert ".txt" in message


def test_unknown_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "a")
    assert refused(TextFiles(paths=(path,), encoding="utf-9")) == f"{path}: there is no encoding 'utf-9'"


def test_a_damaged_archive(tmp_path: Path) -> None:
    whole = gzip.compress(b"text" * 1000)
    for content in (whole[:-10], b"no gzip at all", whole[:20] + b"\0\0\0" + whole[23:]):
        assert "damaged gzip file" in refused(TextFiles(paths=(write(tmp_path / "a.txt.gz", content),)))


# ------------------------------------------------------------------------------------------ tables


def test_json_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", gzip.compress('{"text": "é\\n\\nb", "n": 1}\n\n{"text": "c"}\n'.encode()))
    source = open_source(Path(path))
    assert source == Column(table=JsonLines(paths=(path,)))
    assert documents(source) == [("é\n\nb", f"{path}:1"), ("c", f"{path}:3")]
    pieces = documents(open_source(Path(path), split="paragraph"))
    assert pieces == [("é", f"{path}:1:1"), ("b", f"{path}:1:3"), ("c", f"{path}:3:1")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', "a.jsonl:2: not valid JSON"),
        ("[1, 2]", "a.jsonl:2: expected a JSON object, found list"),
        ('{"body": "a", "n": 1}', "a.jsonl:2: no column 'text'; the columns there are: body, n"),
        ('{"text": 5}', "a.jsonl:2: column 'text' holds int, not text"),
        ('{"text": null}', "a.jsonl:2: column 'text' holds NoneType, not text"),
        ("[" * 100_000, "a.jsonl:2: not usable JSON: nested too deeply"),
    ],
)
def test_bad_json_lines(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "fine"}\n' + line + "\n")
    assert message in refused(open_source(Path(path)))


def test_a_column_is_split_at_the_line_ends_of_files(tmp_path: Path) -> None:
    text = "one\x0cpage\u2028two\r\nthree\rfour\n"
    path = write(tmp_path / "a.txt", text)
    table = write(tmp_path / "a.jsonl", json.dumps({"text": text}))
    for split in ("line", "paragraph"):
        lines = documents(TextFiles(paths=(path,), split=split))  # type: ignore[arg-type]
        cells = documents(open_source(Path(table), split=split))  # type: ignore[arg-type]
        assert [(text, where.replace(path, f"{table}:1")) for text, where in lines] == cells
    assert [text for text, _ in documents(TextFiles(paths=(path,), split="line"))] == ["one\x0cpage\u2028two", "three", "four"]


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a \\ud83d\\ude00", "other": "\\ud83d"}\n{"text": "a \\uD83D b"}\n')
    message = f"{path}:2: column 'text': character 2 is \\ud83d, a lone surrogate (half a character); write it whole or remove it"
    assert refused(open_source(Path(path))) == message
    assert next(read_documents(open_source(Path(path)))).text == "a \U0001f600"


def test_csv_with_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,text\r\n1,"a, ""b""\nc"\r\n\r\n2,d\r\n')
    assert documents(open_source(Path(path))) == [('a, "b"\nc', f"{path}:2"), ("d", f"{path}:5")]


def test_tsv_takes_quotes_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"unbalanced\t1\nnext, line\t0\n')
    assert [text for text, _ in documents(open_source(Path(path)))] == ['"unbalanced', "next, line"]


def test_columns_can_be_named_where_there_is_no_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "1,first\n2,second\n")
    table = Csv(paths=(path,), columns=("id", "text"))
    assert [text for text, _ in documents(Column(table=table))] == ["first", "second"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,body\n1,a\n", "a.csv: no column 'text'; the columns there are: id, body"),
        ("id,text\n1,a,b\n", "a.csv:2: 3 values where there are 2 columns"),
        ('id,text\n1,"a\n2,b\n', "a.csv:2: unexpected end of data"),
        ('id,text\n1,"a"b\n', "a.csv:2: ',' expected after '\"'"),
        ("\n\n", "a.csv: no column 'text'; the columns there are: none"),
    ],
)
def test_bad_csv(tmp_path: Path, content: str, message: str) -> None:
    assert message in refused(open_source(Path(write(tmp_path / "a.csv", content))))


def test_parquet_by_row_group(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    rows = pyarrow.table({"n": list(range(5000)), "text": pyarrow.array([f"t{i}" for i in range(5000)], pyarrow.large_string())})
    pyarrow.parquet.write_table(rows, path, row_group_size=1500)
    found = documents(open_source(Path(path)))
    assert found == [(f"t{i}", f"{path}:{i + 1}") for i in range(5000)]


def test_bad_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"body": ["a"], "text": pyarrow.array([None], pyarrow.string())}), path)
    assert f"{path}:1: column 'text' holds NoneType" in refused(open_source(path))
    assert f"{path}: no column 'title'; the columns there are: body, text" in refused(open_source(path, column="title"))
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{path}: not a readable Parquet file" in refused(open_source(path))


# ------------------------------------------------------------------------------------------ telling kinds apart


def test_a_folder_is_what_most_of_its_bytes_are(tmp_path: Path) -> None:
    write(tmp_path / "README.md", "about")
    write(tmp_path / "part-0.jsonl", json.dumps({"text": "a" * 100}))
    write(tmp_path / "part-1.jsonl", json.dumps({"text": "b"}))
    source = open_source(tmp_path)
    assert source == Column(table=JsonLines(paths=(str(tmp_path),)))
    assert [text for text, _ in documents(source)] == ["a" * 100, "b"]
    assert list_source(source).skipped == {".md": 1}


def test_an_unknown_suffix_is_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.docx", "text")
    with pytest.raises(InputError, match=r"unknown suffix '.docx'; files that can be read end in .txt"):
        open_source(Path(path))
    with pytest.raises(InputError, match=r"unknown suffix '.txt'; files that can be read end in .jsonl"):
        open_table(Path(write(tmp_path / "a.txt", "text")))
    assert documents(TextFiles(paths=(path,))) == [("text", path)]  # said to be text, it is read as text


@pytest.mark.parametrize(
    "source",
    [
        TextFiles(paths=("a",), split="line"),
        Column(table=Csv(paths=("a",), columns=("x",)), column="x"),
        Column(table=Parquet(paths=("p",))),
    ],
)
def test_sources_survive_json(source: TextFiles | Column) -> None:
    assert from_json(type(source), to_json(source), "here") == source


def test_real_novels(shared: Path) -> None:
    source = open_source(shared / "data/text/novels-eng.jsonl.gz")
    assert sum(len(text) for text, _ in documents(source)) > 60_000_000
    with pytest.raises(InputError, match="no column 'body'; the columns there are: title, author, text"):
        documents(open_source(shared / "data/text/novels-eng.jsonl.gz", column="body"))
