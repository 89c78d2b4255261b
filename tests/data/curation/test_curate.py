"""Whole curations of small corpora: what stays, what is said of the rest, and that nothing else decides it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.data.curation.corpus import contents, edited, prose, write_lines

from bothways.config import from_json, to_json
from bothways.data.curation.duplicates import ExactDuplicates, NearDuplicates
from bothways.data.curation.manifest import read_manifest
from bothways.data.curation.matching import join
from bothways.data.curation.quality import GopherQuality
from bothways.data.curation.recipe import Curation, Local
from bothways.data.curation.run import curate
from bothways.data.curation.shards import JsonlShards, ParquetShards
from bothways.data.curation.sources import Unit, open_curated, read_unit
from bothways.data.rows import JsonLines
from bothways.data.source import Column, TextFiles, open_source, read_documents
from bothways.errors import InputError

pytest.importorskip("datatrove", reason="pip install 'bothways[data]'")
pytest.importorskip("rensa", reason="pip install 'bothways[data]'")

STEPS = (ExactDuplicates(), GopherQuality(), NearDuplicates())


def sources(folder: Path) -> tuple[Column, TextFiles]:
    """Two files: in the first 30 documents, some of them copies; in the second copies of the first, and a short one."""
    texts = [prose(seed) for seed in range(30)]
    write_lines(folder / "a/a.jsonl", [*texts, texts[3], edited(texts[4], 0), "  " + texts[5].replace(" ", "  ")])
    for number, text in enumerate([texts[6], edited(texts[7], 1), "Too short.", prose(99)]):
        (folder / "b").mkdir(exist_ok=True)
        (folder / "b" / f"{number}.txt").write_text(text, encoding="utf-8")
    return Column(table=JsonLines(paths=(str(folder / "a"),))), TextFiles(paths=(str(folder / "b"),))


def recipe(folder: Path, workers: int = 1, **changes: object) -> Curation:
    base = Curation(sources=sources(folder), steps=STEPS, executor=Local(workers=workers), part_bytes=6000)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_what_stays_and_what_is_said_of_the_rest(tmp_path: Path) -> None:
    done = curate(recipe(tmp_path), tmp_path / "out")
    assert done is not None
    kept = {document.text for document in read_documents(open_source(tmp_path / "out/data"))}
    assert kept == {prose(seed) for seed in (*range(30), 99)}
    a, b = tmp_path / "a/a.jsonl", tmp_path / "b"
    exact, quality, near = done.audit["steps"]
    [same] = exact["reasons"]
    assert (same["documents"], same["outcome"], exact["kept"]["documents"]) == (3, "dropped", 34)
    assert [(one["where"], one["kept"]) for one in same["examples"]] == [
        (f"{a}:31", f"{a}:4"),
        (f"{a}:33", f"{a}:6"),
        (f"{b}/0.txt", f"{a}:7"),
    ]
    [short] = quality["reasons"]
    assert (short["reason"], short["documents"], short["examples"][0]["text"]) == ("gopher_short_doc", 1, "Too short.")
    [alike] = near["reasons"]
    assert [(one["where"], one["kept"]) for one in alike["examples"]] == [(f"{a}:32", f"{a}:5"), (f"{b}/1.txt", f"{a}:8")]
    assert done.audit["input"]["documents"] == 37
    assert done.audit["output"]["documents"] == done.manifest.documents == 31
    for step in done.audit["steps"]:
        assert step["seen"]["documents"] == step["kept"]["documents"] + step["dropped"]["documents"]
    assert json.loads((tmp_path / "out/audit.json").read_text()) == done.audit


@pytest.mark.slow
def test_neither_workers_nor_a_second_run_change_a_byte(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        curate(recipe(tmp_path, workers), tmp_path / name)
    found = contents(tmp_path / "one")
    assert found == contents(tmp_path / "two")
    assert set(found) > {"audit.json", "manifest.json", "data/000000.jsonl.gz", "data/000001.jsonl.gz"}
    said: list[str] = []
    again = curate(recipe(tmp_path), tmp_path / "one", said.append)
    assert again is not None
    assert said == [f"{tmp_path / 'one'}: done already"]
    assert contents(tmp_path / "one") == found


@pytest.mark.slow
def test_the_cut_into_parts_does_not_change_what_is_kept(tmp_path: Path) -> None:
    kept = []
    for part_bytes in (1500, 20_000, 1 << 20):
        curate(recipe(tmp_path, part_bytes=part_bytes), tmp_path / f"{part_bytes}")
        kept.append(
            sorted((one.text, one.where.split("/")[-1]) for one in read_documents(open_source(tmp_path / f"{part_bytes}/data")))
        )
        kept[-1] = sorted(text for text, _ in kept[-1])
    assert kept[0] == kept[1] == kept[2]


@pytest.mark.parametrize(
    "output", [JsonlShards(), JsonlShards(compression="zstd"), JsonlShards(compression="none"), ParquetShards()]
)
def test_every_format_is_read_back(tmp_path: Path, output: JsonlShards | ParquetShards) -> None:
    done = curate(recipe(tmp_path, output=output), tmp_path / "out")
    assert done is not None
    texts = sorted(document.text for document in read_documents(open_source(tmp_path / "out/data")))
    assert texts == sorted(prose(seed) for seed in (*range(30), 99))
    assert sum(map(len, texts)) == done.manifest.characters


@pytest.mark.parametrize("part_bytes", [1500, 1 << 20])
def test_files_that_cannot_be_read_are_left_out_where_that_is_asked_for(tmp_path: Path, part_bytes: int) -> None:
    broken = recipe(tmp_path, part_bytes=part_bytes)
    (tmp_path / "b/old.txt").write_bytes("Über den Flüssen".encode("latin-1"))
    with open(tmp_path / "a/a.jsonl", "a", encoding="utf-8") as file:
        file.write('{"text": "cut of')
    with pytest.raises(InputError, match=r"not valid JSON.*--skip-unreadable|not utf-8.*--skip-unreadable"):
        curate(broken, tmp_path / "out")
    done = curate(dataclasses.replace(broken, unreadable="drop"), tmp_path / "out")
    assert done is not None
    reading = done.audit["steps"][0]
    [reason] = reading["reasons"]
    assert (reading["number"], reason["reason"], reason["outcome"]) == (0, "cannot be read", "dropped")
    assert [one["where"] for one in reason["examples"]] == [str(tmp_path / "a/a.jsonl"), str(tmp_path / "b/old.txt")]
    assert "a.jsonl:34: not valid JSON" in reason["examples"][0]["text"]
    # what stands before the place is read
    assert {one.text for one in read_documents(open_source(tmp_path / "out/data"))} == {prose(seed) for seed in (*range(30), 99)}


def test_a_folder_of_several_kinds_is_read_whole(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write_lines(folder / "a.jsonl", [prose(0)])
    (folder / "b.md").write_text(prose(1))
    (folder / "c.csv").write_text(f'text,label\n"{prose(2)}",x\n')
    (folder / "d.tsv").write_text(f"label\ttext\nx\t{prose(3).splitlines()[0]}\n")
    (folder / "picture.png").write_bytes(b"png")
    said: list[str] = []
    done = curate(Curation(sources=open_curated(folder), steps=(), executor=Local(workers=1)), tmp_path / "out", said.append)
    assert done is not None
    assert done.manifest.documents == 4
    assert said == [
        f"{folder}: 2 files; 1 skipped (1 .png)",
        f"{folder / 'c.csv'}, {folder / 'd.tsv'}: 2 files",
    ]


def test_the_recipe_is_a_value(tmp_path: Path) -> None:
    one = recipe(tmp_path)
    assert from_json(Curation, to_json(one), "here") == one


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt: exists, and no curation made it"):
        curate(recipe(tmp_path), out)
    curate(recipe(tmp_path), tmp_path / "done")
    with pytest.raises(InputError, match="output of another recipe"):
        curate(recipe(tmp_path, seed=1), tmp_path / "done")
    (tmp_path / "b/new.txt").write_text(prose(5))
    with pytest.raises(InputError, match="or of other files"):
        curate(dataclasses.replace(recipe(tmp_path), sources=recipe(tmp_path).sources), tmp_path / "done")


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    curate(recipe(tmp_path), tmp_path / "out")
    shard = sorted((tmp_path / "out/data").iterdir())[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(InputError, match=shard.name):
        read_manifest(tmp_path / "out")
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=shard.name):
        read_manifest(tmp_path / "out")
    shard.unlink()
    with pytest.raises(InputError, match=f"{shard.name}: missing"):
        read_manifest(tmp_path / "out")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.slow
def test_a_fault_in_a_source_is_one_line_and_can_be_mended(tmp_path: Path, workers: int) -> None:
    made = recipe(tmp_path, workers)
    file = tmp_path / "a/a.jsonl"
    good = file.read_text()
    file.write_text(good + "{broken\n")
    with pytest.raises(InputError, match=r"a\.jsonl:34: not valid JSON"):
        curate(made, tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()
    file.write_text(good)
    assert curate(made, tmp_path / "out") is not None


def test_nothing_kept_is_an_empty_output(tmp_path: Path) -> None:
    done = curate(recipe(tmp_path, steps=(GopherQuality(min_words=1000),)), tmp_path / "out")
    assert done is not None
    assert (done.manifest.documents, done.manifest.shards) == (0, ())
    assert read_manifest(tmp_path / "out") == done.manifest


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A curation that fails while groups are joined goes on from there: no source is read a second time."""
    made = recipe(tmp_path)
    straight = curate(made, tmp_path / "straight")
    read: list[str] = []
    failures = [InputError("the disk is full")]

    def counted(source: object, unit: Unit) -> Iterator[tuple[int, object]]:
        read.append(unit.path)
        return read_unit(source, unit)  # type: ignore[arg-type]

    def failing(*arguments: object) -> None:
        if failures:
            raise failures.pop()
        join(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("bothways.data.curation.tasks.read_unit", counted)
    monkeypatch.setattr("bothways.data.curation.tasks.join", failing)
    with pytest.raises(InputError, match="the disk is full"):
        curate(made, tmp_path / "out")
    assert read
    before = len(read)
    said: list[str] = []
    assert curate(made, tmp_path / "out", said.append) is not None
    assert len(read) == before
    assert any(line.startswith("going on: ") for line in said)
    assert straight is not None
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_a_changed_source_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unfinished work on a file that has changed since is not gone on with."""
    made = recipe(tmp_path)

    def failing(*arguments: object) -> None:
        raise InputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("bothways.data.curation.tasks.join", failing)
        with pytest.raises(InputError, match="the disk is full"):
            curate(made, tmp_path / "out")
    (tmp_path / "b/3.txt").write_text(prose(98), encoding="utf-8")
    said: list[str] = []
    done = curate(made, tmp_path / "out", said.append)
    assert any("beginning anew" in line for line in said)
    assert done is not None
    texts = {document.text for document in read_documents(open_source(tmp_path / "out/data"))}
    assert prose(98) in texts
    assert prose(99) not in texts
