"""The index: only what is new is embedded, what is there is found, and an interruption costs nothing but time."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from tests.retrieval.killed import BATCH, DOCUMENTS
from tests.retrieval.toy import Fixed, Toy

import bothways.retrieval
from bothways.errors import InputError, MissingExtraError
from bothways.retrieval.chunking import Chunking
from bothways.retrieval.index import Index, Method
from bothways.retrieval.store import Store
from bothways.retrieval.update import IndexReport

PATHS = [str(Path(bothways.retrieval.__file__).parents[2]), str(Path(__file__).parents[2])]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(PATHS)}
LONG = "Whales sing. " * 30
ANIMALS = {"cat": "The cat sat on the mat.", "whale": LONG, "it's 'odd'\n\"ü": "Fish swim in the sea."}


def build(folder: Path, documents: dict[str, str], embedder: Toy | None = None, **options: object) -> IndexReport:
    return Index.create_or_update(folder, documents.items(), embedder or Toy(), **options)  # type: ignore[arg-type]


def found(folder: Path, query: str, method: Method = "dense", k: int = 10) -> list[str]:
    return [hit.document for hit in Index.open(folder, Toy()).search(query, k, method)]


def contents(folder: Path) -> set[tuple[str, int, str]]:
    hits = Index.open(folder, Toy()).search("document", 1000)
    assert len(hits) == len({(hit.document, hit.number) for hit in hits})
    return {(hit.document, hit.number, hit.text) for hit in hits}


# -- what an update does ------------------------------------------------------------------------


def test_only_the_new_and_the_changed_are_embedded(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    first = build(folder, ANIMALS | {"blank": " \n"})
    assert first == IndexReport(added=3, empty=1, documents=3, chunked=1, passages=8)

    again, toy = Toy(), Toy()
    second = build(folder, ANIMALS | {"blank": " \n"}, again)
    assert second == IndexReport(unchanged=3, empty=1, documents=3, chunked=1, passages=8)
    assert again.embedded == []

    changed = {"cat": ANIMALS["cat"], "whale": "Whales dive.", "dog": "Dogs bark."}
    assert build(folder, changed, toy) == IndexReport(added=1, changed=1, unchanged=1, removed=1, documents=3, passages=3)
    assert toy.embedded == ["Whales dive.", "Dogs bark."]
    assert str(build(folder, changed)).startswith("0 added, 0 changed, 3 unchanged, 0 removed; 3 documents in 3 passages")
    assert contents(folder) == {(name, 0, text) for name, text in changed.items()}
    for method in ("dense", "bm25", "hybrid"):
        assert found(folder, "fish sea", method).count("it's 'odd'\n\"ü") == 0


def test_an_unchanged_folder_is_not_written_to(tmp_path: Path) -> None:
    build(tmp_path, ANIMALS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    build(tmp_path, ANIMALS)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_two_documents_that_swap_their_texts(tmp_path: Path) -> None:
    build(tmp_path, {"a": "red", "b": "blue"})
    assert build(tmp_path, {"a": "blue", "b": "red"}).changed == 2
    assert contents(tmp_path) == {("a", 0, "blue"), ("b", 0, "red")}


def test_a_document_that_lost_its_text_is_removed(tmp_path: Path) -> None:
    build(tmp_path, {"a": "red", "b": "blue"})
    report = build(tmp_path, {"a": "red", "b": ""})
    assert (report.unchanged, report.empty, report.removed, report.documents) == (1, 1, 1, 1)


def test_another_cut_embeds_everything_again(tmp_path: Path) -> None:
    build(tmp_path, ANIMALS)
    report = build(tmp_path, ANIMALS, chunking=Chunking(max_tokens=12, overlap=3))
    assert (report.changed, report.unchanged) == (3, 0)
    settings = json.loads((tmp_path / "index.json").read_text())
    assert (settings["max_tokens"], settings["overlap"], settings["passages"]) == (12, 3, report.passages)
    toy = Toy()
    assert all(len(toy.tokenizer.encode([text])[0]) <= 12 for _, _, text in contents(tmp_path))  # type: ignore[union-attr]


def test_a_prompt_takes_room_in_every_passage(tmp_path: Path) -> None:
    toy = Toy(prompt="passage: ")
    build(tmp_path, ANIMALS, toy)
    assert toy.tokenizer is not None
    # four sentences of three tokens, two of the prompt, two special ones; a fifth sentence would be the nineteenth token
    assert max(len(ids) for ids in toy.tokenizer.encode(["passage: " + text for text in toy.embedded])) == 16


def test_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    build(tmp_path, dict(DOCUMENTS), batch=10, progress=lambda documents, passages: seen.append((documents, passages)))
    report = IndexReport(added=24, documents=24, chunked=14, passages=seen[-1][1])
    assert build(tmp_path / "again", dict(DOCUMENTS)) == report
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1][0] == 24


# -- search -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dense", "bm25", "hybrid"])
def test_finds_the_passage(tmp_path: Path, method: Method) -> None:
    build(tmp_path, ANIMALS)
    hit = Index.open(tmp_path, Toy()).search("where do fish swim", 2, method)[0]
    assert hit.document == "it's 'odd'\n\"ü"
    assert (hit.number, hit.start, hit.end, hit.text) == (0, 0, 21, "Fish swim in the sea.")
    whale = Index.open(tmp_path, Toy()).search("whales sing", 3, method)
    assert [hit.document for hit in whale] == ["whale"] * 3
    assert all(hit.text == LONG[hit.start : hit.end] for hit in whale)


def test_cosine_not_distance_nor_inner_product(tmp_path: Path) -> None:
    """The query's direction is that of `far`, but `near` is closer to it and `long` has the larger inner product."""
    embedder = Fixed({"far": [30, 0], "near": [1, 1], "long": [100, 200], "query": [1, 0]})
    Index.create_or_update(tmp_path, [(text, text) for text in ("long", "near", "far")], embedder)
    hits = Index.open(tmp_path, embedder).search("query")
    assert [hit.document for hit in hits] == ["far", "near", "long"]
    assert [hit.score for hit in hits] == pytest.approx([1, 2**-0.5, 5**-0.5], abs=1e-6)


def test_queries_and_documents_are_encoded_each_in_their_way(tmp_path: Path) -> None:
    embedder = Fixed({"red": [1, 0], "blue": [0, 1]}, queries={"red": [0, 1]})
    Index.create_or_update(tmp_path, [("a", "red"), ("b", "blue")], embedder)
    assert [hit.document for hit in Index.open(tmp_path, embedder).search("red", 1)] == ["b"]


def test_hybrid_is_the_fusion_of_both(tmp_path: Path) -> None:
    """Dense: a, b, c. BM25 knows only b and c, c first (shorter). So 1/62 + 1/62, 1/63 + 1/61, 1/61."""
    embedder = Fixed({"x": [1, 0], "word and more": [1, 1], "word": [0, 1], "word?": [2, 0.5]})
    Index.create_or_update(tmp_path, [("a", "x"), ("b", "word and more"), ("c", "word")], embedder)
    index = Index.open(tmp_path, embedder)
    assert [hit.document for hit in index.search("word?", method="dense")] == ["a", "b", "c"]
    assert [hit.document for hit in index.search("word?", method="bm25")] == ["c", "b"]
    hits = index.search("word?", method="hybrid")
    assert [hit.document for hit in hits] == ["c", "b", "a"]
    assert [hit.score for hit in hits] == pytest.approx([1 / 63 + 1 / 61, 2 / 62, 1 / 61])


def test_more_asked_than_there_is(tmp_path: Path) -> None:
    build(tmp_path, {"a": "red", "b": "blue"})
    index = Index.open(tmp_path, Toy())
    assert [len(index.search("red", 5000, method)) for method in ("dense", "bm25", "hybrid")] == [2, 1, 2]
    assert index.search("absent", 5, "bm25") == []


# -- refusals -----------------------------------------------------------------------------------


def test_another_model(tmp_path: Path) -> None:
    build(tmp_path, ANIMALS)
    before = (tmp_path / "index.json").read_bytes()
    for other, reason in ((Toy("other", "2"), "not other"), (Toy("toy", "2"), "other weights, prompts or tokenizer")):
        with pytest.raises(InputError, match=f"indexed with toy .{reason}"):
            Index.open(tmp_path, other)
        with pytest.raises(InputError, match=f"indexed with toy .{reason}"):
            build(tmp_path, ANIMALS, other)
    assert (tmp_path / "index.json").read_bytes() == before


def test_two_documents_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^a: two documents have this name"):
        Index.create_or_update(tmp_path, [("a", "red"), ("b", "blue"), ("a", "red")], Toy())


@pytest.mark.parametrize(("documents", "message"), [([], "no documents"), ([("a", " "), ("b", "")], "none of the 2 documents")])
def test_nothing_to_index_removes_nothing(tmp_path: Path, documents: list[tuple[str, str]], message: str) -> None:
    build(tmp_path, ANIMALS)
    with pytest.raises(InputError, match=message):
        Index.create_or_update(tmp_path, documents, Toy())
    assert Index.open(tmp_path, Toy()).settings.documents == 3


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(InputError, match="holds something that is not an index"):
            build(place, ANIMALS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="there is no index here"):
        Index.open(tmp_path / "none", Toy())


@pytest.mark.parametrize("text", ["{", '{"format": 2}', '{"formats": 1}'])
def test_damaged_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(InputError, match=r"index\.json: "):
        Index.open(tmp_path, Toy())


def test_impossible_chunking(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_tokens=19: toy reads 18 tokens at most"):
        build(tmp_path, ANIMALS, chunking=Chunking(max_tokens=19))
    toy = Toy()
    toy.tokenizer = None
    with pytest.raises(InputError, match="toy has no tokenizer"):
        build(tmp_path, ANIMALS, toy)


def test_impossible_searches(tmp_path: Path) -> None:
    build(tmp_path, ANIMALS)
    index = Index.open(tmp_path, Toy())
    with pytest.raises(InputError, match="the query is empty"):
        index.search(" ")
    with pytest.raises(InputError, match="k=0"):
        index.search("fish", 0)


def test_vectors_without_direction(tmp_path: Path) -> None:
    for vector in ([0, 0], [np.nan, 1], [np.inf, 1]):
        with pytest.raises(InputError, match=r"^a: the model gives it a vector that is zero or not finite"):
            Index.create_or_update(tmp_path / str(vector[0]), [("a", "text")], Fixed({"text": vector}))


def test_text_that_is_no_unicode(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lone surrogate"):
        Index.create_or_update(tmp_path, [("a", "bad \ud800")], Toy())


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(MissingExtraError, match=r"bothways\[index\]"):
        build(tmp_path, ANIMALS)


# -- interruptions ------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_kill_and_go_on(tmp_path: Path, batch: int) -> None:
    """`kill -9` before a batch; the same command again embeds the rest, and the index is that of a run left alone."""
    folder = tmp_path / "killed"
    script = [sys.executable, "-m", "tests.retrieval.killed", str(folder), str(batch)]
    child = subprocess.Popen(script, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert child.stdout is not None
    assert child.stdout.readline() == "stopped\n"
    child.kill()
    child.communicate()

    if batch:
        with pytest.raises(InputError, match="its last update did not end"):
            Index.open(folder, Toy())
    rest, whole = Toy(), Toy()
    report = Index.create_or_update(folder, DOCUMENTS, rest, batch=BATCH)
    straight = Index.create_or_update(tmp_path / "straight", DOCUMENTS, whole, batch=BATCH)
    assert report.added + report.unchanged == straight.added == len(DOCUMENTS)
    assert (report.unchanged > 0) == (batch > 0)
    assert rest.embedded == whole.embedded[len(whole.embedded) - len(rest.embedded) :]
    assert (len(rest.embedded) < len(whole.embedded)) == (batch > 0)
    assert astuple(report)[-3:] == astuple(straight)[-3:]
    assert contents(folder) == contents(tmp_path / "straight")


def test_interrupted_between_writing_the_new_and_removing_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, ANIMALS)
    changed = {name: f"New words: {text}" for name, text in ANIMALS.items()}
    with monkeypatch.context() as patch:
        patch.setattr(Store, "keep_only", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path, changed)
    toy = Toy()
    report = build(tmp_path, changed, toy)
    assert (report.unchanged, report.changed, toy.embedded) == (3, 0, [])
    build(tmp_path / "straight", changed)
    assert contents(tmp_path) == contents(tmp_path / "straight")


def test_interrupted_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is written, but BM25 is not rebuilt: the next update does that, and embeds nothing."""
    build(tmp_path, {"a": "red"})
    with monkeypatch.context() as patch:
        patch.setattr("bothways.retrieval.update.Lexical.build", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path, {"a": "red", "b": "blue"})
    toy = Toy()
    build(tmp_path, {"a": "red", "b": "blue"}, toy)
    assert toy.embedded == []
    assert found(tmp_path, "blue", "bm25") == ["b"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the operating system refuses to write on."""
    script = (
        "import resource, sys, bothways.errors; from tests.retrieval import toy; from bothways.retrieval.index import Index;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY));"
        "documents = ((str(i), f'{i} words of text ' * 2000) for i in range(3));\n"
        "try: Index.create_or_update(sys.argv[1], documents, toy.Toy(), batch=1)\n"
        "except bothways.errors.InputError as error: print(error)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "index")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    message = f"cannot write {tmp_path / 'index'}: {os.strerror(errno.EFBIG)}; the documents written so far are kept"
    assert done.stdout.startswith(message), done.stderr
    assert done.stdout.count("\n") == 1


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
