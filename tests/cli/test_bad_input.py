"""What cannot be used: one line on stderr that names the culprit, exit code 1, and nothing overwritten."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.cli.conftest import WORDS, Refused, Run, save

import bothways
from bothways.data.tokenizer_training import WordPiece, train_tokenizer

# Every verb that reads texts: the model (or tokenizer), then the texts, then where to.
READERS = {
    "embed": ("embed", "{model}", "{texts}", "--out", "{out}/vectors.npy"),
    "index": ("index", "{model}", "{texts}", "--out", "{out}/index"),
    "tokenizer train": ("tokenizer", "train", "{texts}", "--out", "{out}/tokenizer"),
    "tokenizer report": ("tokenizer", "report", "{model}", "{texts}"),
}


@pytest.fixture(params=list(READERS))
def read(request: pytest.FixtureRequest, refused: Refused, model: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs a verb on a file that must be refused, where something of the verb's is already; it is left as it was."""

    def command(file: Path, *options: str) -> str:
        out = tmp_path / "out"
        out.mkdir()
        np.save(out / "vectors.npy", np.zeros(3))
        before = snapshot(tmp_path)
        words = [word.format(model=model, texts=file, out=out) for word in READERS[request.param]]
        message = refused(*words, *options)
        assert snapshot(tmp_path) == before
        return message

    return command


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def text(tmp_path: Path, content: bytes, name: str = "texts.txt") -> Path:
    file = tmp_path / name
    file.write_bytes(content)
    return file


# -- texts --------------------------------------------------------------------------------------


def test_an_empty_file(read: Refused, tmp_path: Path) -> None:
    file = text(tmp_path, b"")
    assert f"{file}: the file is empty" in read(file)


def test_a_file_of_spaces(read: Refused, tmp_path: Path) -> None:
    read(text(tmp_path, b" \n\n  \n"))


def test_a_binary_file(read: Refused, tmp_path: Path) -> None:
    file = text(tmp_path, b"the cat\n\0\0\1\2")
    assert str(file) in (message := read(file))
    assert "binary" in message


def test_a_wrong_encoding(read: Refused, tmp_path: Path) -> None:
    file = text(tmp_path, "the cat\n caf\u00e9 au lait\n".encode("latin-1"))
    assert f"{file}: not utf-8 at byte 12" in read(file)


def test_an_endless_line(read: Refused, tmp_path: Path) -> None:
    file = text(tmp_path, b"word " * 10_000_000)
    message = read(file)
    assert str(file) in message
    assert "over 16,000,000 characters" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [("table.csv", b"id,body\n1,the cat\n"), ("table.jsonl", b'{"id": 1, "body": "the cat"}\n')],
)
def test_a_missing_column(read: Refused, tmp_path: Path, name: str, content: bytes) -> None:
    file = text(tmp_path, content, name)
    message = read(file, "--column", "abstract")
    assert str(file) in message
    assert "no column 'abstract'; the columns there are: id, body" in message


def test_a_damaged_table(read: Refused, tmp_path: Path) -> None:
    assert "table.parquet: not a readable Parquet file" in read(text(tmp_path, b"PAR1 nothing", "table.parquet"))


def test_no_such_file(read: Refused, tmp_path: Path) -> None:
    assert f"{tmp_path / 'none.txt'}: no such file or folder" in read(tmp_path / "none.txt")


def test_a_file_of_an_unknown_kind(read: Refused, tmp_path: Path) -> None:
    assert "unknown suffix '.docx'" in read(text(tmp_path, b"the cat", "texts.docx"))


def test_one_bad_file_of_a_folder_leaves_an_index_as_it_was(run: Run, refused: Refused, model: Path, tmp_path: Path) -> None:
    notes, out = tmp_path / "notes", tmp_path / "index"
    notes.mkdir()
    (notes / "a.txt").write_text("the cat")
    assert run("index", model, notes, "--out", out).code == 0
    (notes / "a.txt").write_text("the dog")
    (notes / "b.txt").write_bytes(b"\xff\xff")
    before = snapshot(out)
    assert "b.txt: not utf-8" in refused("index", model, notes, "--out", out)
    assert snapshot(out) == before


@pytest.mark.parametrize(
    ("last", "message"),
    [('{"id": "0", "text": "the dog"}', "0: two documents have this name"), ('{"id": "x", "text": "\\ud800"}', "lone surrogate")],
)
def test_a_bad_last_row_leaves_an_index_as_it_was(
    run: Run, refused: Refused, model: Path, tmp_path: Path, last: str, message: str
) -> None:
    """Far behind what one batch of the index holds."""
    table, out = tmp_path / "table.jsonl", tmp_path / "index"
    table.write_text('{"id": "0", "text": "the cat"}\n')
    command = ("index", model, table, "--out", out, "--id-column", "id")
    assert run(*command).code == 0
    before = snapshot(out)
    table.write_text("".join(f'{{"id": "{number}", "text": "the cat {number}"}}\n' for number in range(5000)) + last + "\n")
    assert message in refused(*command)
    assert snapshot(out) == before
    assert run("search", out, "cat").code == 0


def test_a_model_that_moved(run: Run, refused: Refused, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    assert run("index", model, text(tmp_path, b"the cat\n"), "--out", out).code == 0
    moved = model.rename(tmp_path / "moved")
    message = refused("search", out, "cat")
    assert f"{out}: its model cannot be loaded ({model}: no such folder); if it has moved, say where with --model" in message
    assert run("search", out, "cat", "--model", moved).code == 0


def test_names_that_are_none(refused: Refused, model: Path, tmp_path: Path) -> None:
    table = text(tmp_path, b'{"id": null, "text": "the cat"}\n', "table.jsonl")
    options = ("--out", tmp_path / "index", "--id-column", "id")
    assert "table.jsonl:1: no name in column 'id'" in refused("index", model, table, *options)
    lines = text(tmp_path, b"the cat\n")
    assert "leave out --id-column" in refused("index", model, lines, *options)
    table.write_text('{"id": 1, "text": null}\n')
    assert "column 'text' holds NoneType, not text" in refused("index", model, table, *options)


# -- models -------------------------------------------------------------------------------------


@pytest.fixture
def unloadable(refused: Refused, model: Path, tmp_path: Path) -> Callable[[], str]:
    """Every verb that loads refuses the damaged folder with the same line, and writes nothing."""

    def check() -> str:
        texts = text(tmp_path, b"the cat\n")
        before = snapshot(tmp_path)
        messages = {
            refused("info", model),
            refused("verify", model, model),
            refused("fill", model, "the [MASK]"),
            refused("convert", model, tmp_path / "converted"),
            refused("embed", model, texts, "--out", tmp_path / "vectors.npy"),
            refused("index", model, texts, "--out", tmp_path / "index"),
        }
        assert snapshot(tmp_path) == before
        assert len(messages) == 1
        return messages.pop()

    return check


Unloadable = Callable[[], str]
WEIGHT = "bert.encoder.layer.1.attention.self.query.weight"


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_a_missing_weight(model: Path, unloadable: Unloadable) -> None:
    change_weights(model, lambda tensors: tensors.pop(WEIGHT))
    assert f"{model}: 1 weight missing: {WEIGHT}" in unloadable()


def test_an_extra_weight(model: Path, unloadable: Unloadable) -> None:
    change_weights(model, lambda tensors: tensors.update({"bert.adapter": torch.zeros(1)}))
    assert "1 weight not known to this family: bert.adapter" in unloadable()


def test_a_misshapen_weight(model: Path, unloadable: Unloadable) -> None:
    change_weights(model, lambda tensors: tensors.update({WEIGHT: torch.zeros(24, 23)}))
    assert WEIGHT in unloadable()


def test_truncated_weights(model: Path, unloadable: Unloadable) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    assert f"{file}: truncated or not a safetensors file" in unloadable()


class _Attack:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (os.environ["BOTHWAYS_TEST_ATTACK"],)


def test_a_pickle(model: Path, tmp_path: Path, unloadable: Unloadable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTHWAYS_TEST_ATTACK", str(tmp_path / "attacked"))
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": _Attack()}, protocol=2))
    assert f"{model / 'pytorch_model.bin'}: refused: it holds more than tensors" in unloadable()
    assert not (tmp_path / "attacked").exists()


def test_a_tokenizer_too_large(model: Path, unloadable: Unloadable) -> None:
    train_tokenizer(WordPiece(vocab_size=400), [WORDS, "quick brown foxes jumped over lazy hounds"]).save(model)
    message = unloadable()
    assert f"{model}: the tokenizer has ids up to" in message
    assert "the embedding has" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 5}, "5 does not divide hidden_size 24"),
        ({"hidden_act": "mish"}, "hidden_act"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"model_type": "t5"}, "the family 't5' is not supported"),
    ],
)
def test_a_contradictory_config(model: Path, unloadable: Unloadable, changes: dict[str, object], message: str) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **changes}))
    assert message in unloadable()


def test_no_config_and_no_folder(model: Path, unloadable: Unloadable, refused: Refused) -> None:
    (model / "config.json").unlink()
    assert f"{model}: no config.json" in unloadable()
    assert "this is a file" in refused("info", model / "model.safetensors")


def test_no_tokenizer(model: Path, tmp_path: Path, run: Run, refused: Refused) -> None:
    """It is missed where there is text to read, and only there."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
    assert "has no tokenizer" in refused("fill", model, "the [MASK]")
    assert "has no tokenizer" in refused("embed", model, text(tmp_path, b"the cat\n"), "--out", tmp_path / "vectors.npy")
    assert f"{model}: no tokenizer" in refused("tokenizer", "report", model, tmp_path / "texts.txt")
    assert run("info", model).code == 0


def test_no_blank_and_no_head(model: Path, refused: Refused) -> None:
    assert "the text has no [MASK] to fill" in refused("fill", model, "the cat")
    change_weights(model, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("cls.")])
    assert "has no masked-language-model head" in refused("fill", model, "the [MASK]")


# -- where to -----------------------------------------------------------------------------------


def test_an_index_of_another_model(run: Run, refused: Refused, model: Path, tmp_path: Path) -> None:
    out, texts = tmp_path / "index", text(tmp_path, b"the cat\n")
    other = save(tmp_path / "other", seed=1)
    assert run("index", model, texts, "--out", out).code == 0
    before = snapshot(out)
    for command in (("search", out, "cat", "--model", other), ("index", other, texts, "--out", out)):
        assert f"{out}: was indexed with {model}" in refused(*command)
    assert snapshot(out) == before
    assert f"{tmp_path / 'none'}: there is no index here" in refused("search", tmp_path / "none", "cat")
    assert "holds something that is not an index" in refused("search", model, "cat")
    assert "the query is empty" in refused("search", out, " ")


def test_outputs_in_the_way(refused: Refused, model: Path, tmp_path: Path) -> None:
    texts = text(tmp_path, b"the cat\n")
    thesis = text(tmp_path, b"mine", "thesis.npy")
    (tmp_path / "folder.npy").mkdir()
    before = snapshot(tmp_path)
    assert f"{thesis}: exists and is not a .npy file" in refused("embed", model, texts, "--out", thesis)
    assert "folder.npy: is a folder" in refused("embed", model, texts, "--out", tmp_path / "folder.npy")
    for command in (
        ("convert", model, model),
        ("convert", model, thesis),
        ("tokenizer", "train", texts, "--out", model),
        ("index", model, texts, "--out", model),
    ):
        refused(*command)
    assert f"cannot write {thesis / 'v.npy'}" in refused("embed", model, texts, "--out", thesis / "v.npy")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("verb", ["convert", "tokenizer"])
def test_the_current_folder_is_no_output(
    refused: Refused, model: Path, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before any work: nothing here could be loaded or read."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    commands = {"convert": ("convert", "nowhere", "."), "tokenizer": ("tokenizer", "train", "nowhere", "--out", ".")}
    assert "name a new folder" in refused(*commands[verb])


# -- Ctrl-C -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "place", "said"),
    [
        (("embed", "model", "texts.txt", "--out", "v.npy"), "model.model.Model.encode", "nothing was written"),
        (("tokenizer", "train", "texts.txt", "--out", "t"), "data.tokenizer.Tokenizer.save", "nothing was written"),
        (("convert", "model", "half"), "model.model.Model.save", "nothing was written"),
        (("index", "model", "texts.txt", "--out", "i"), "retrieval.store.Store.add", "the same command goes on:"),
        (("pretrain", "texts.txt", "--out", "r", "--steps", "1"), "data.tokenizer.Tokenizer.save", "the same command goes on:"),
    ],
)
def test_an_interruption(
    run: Run, model: Path, tmp_path: Path, command: tuple[str, ...], place: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told in a line, with exit code 1, and what is said of the folder is true."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    text(tmp_path, b"the cat\n")
    before = snapshot(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"bothways.{place}", interrupted)
    monkeypatch.setattr(sys, "argv", ["bothways", *command])
    ran = run(*command)
    assert (ran.code, ran.out) == (1, "")
    assert f"interrupted; {said}\n" in ran.err
    assert "Traceback" not in ran.err
    if said == "nothing was written":
        assert snapshot(tmp_path) == before
    else:
        assert ran.err.splitlines()[-1].strip() == " ".join(["bothways", *command])


# -- a full disk --------------------------------------------------------------------------------


FULL = (
    "import resource, sys; from bothways.cli import main; import torch, numpy;"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY)); sys.exit(main(sys.argv[2:]))"
)


def on_a_full_disk(limit: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process none of whose files may grow beyond so many bytes."""
    whole = [sys.executable, "-c", FULL, str(limit), *map(str, command)]
    source = str(Path(bothways.__file__).parents[1])
    return subprocess.run(whole, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": source})


@pytest.mark.parametrize("verb", ["embed", "embed parquet", "convert", "tokenizer", "index"])
def test_a_full_disk(model: Path, tmp_path: Path, verb: str) -> None:
    """A limit on the size of files stands for the disk: the operating system refuses to write on."""
    texts = text(tmp_path, "".join(f"the cat sat {number}\n" for number in range(500)).encode())
    commands: dict[str, tuple[int, Path, list[str | Path]]] = {
        "embed": (20_000, tmp_path / "v.npy", ["embed", model, texts, "--out"]),
        "embed parquet": (2_000, tmp_path / "v.parquet", ["embed", model, texts, "--out"]),
        "convert": (20_000, tmp_path / "converted", ["convert", model]),
        "tokenizer": (2_000, tmp_path / "tokenizer", ["tokenizer", "train", texts, "--out"]),
        "index": (2_000, tmp_path / "index", ["index", model, texts, "--out"]),
    }
    limit, out, command = commands[verb]
    if verb == "embed":
        np.save(out, np.zeros(3))
    before = snapshot(tmp_path)
    done = on_a_full_disk(limit, *command, out)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert str(out) in done.stderr
    assert os.strerror(errno.EFBIG) in done.stderr or "requested and" in done.stderr  # the latter is numpy's
    if verb != "index":  # which keeps what it has written, to go on from there
        assert snapshot(tmp_path) == before
