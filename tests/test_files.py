"""Writing: what is there is replaced whole or not at all, and a refusal is one line that names the place."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bothways.data.tokenizer_training import WordPiece, train_tokenizer
from bothways.errors import InputError
from bothways.files import replacing, reported, write_text
from bothways.model.settings import EmbeddingSettings, write_settings
from bothways.model.weights import write_weights


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def small_disk() -> Iterator[None]:
    """A limit on the size of files stands for the disk: the operating system refuses to write on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    for text in ("old", "new"):
        write_text(tmp_path / "a" / "b.txt", text)
    assert contents(tmp_path) == {"a/b.txt": b"new"}


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with replacing(tmp_path / "folder") as temporary:
        (temporary / "deep").mkdir(parents=True)
        (temporary / "deep" / "a.txt").write_text("a")
        assert not (tmp_path / "folder").exists()
    assert contents(tmp_path) == {"folder/deep/a.txt": b"a"}


def test_the_temporary_name_ends_like_the_place(tmp_path: Path) -> None:
    """numpy adds its suffix to any other name."""
    with replacing(tmp_path / "a.npy") as temporary:
        np.save(temporary, np.zeros(3))
    assert list(contents(tmp_path)) == ["a.npy"]


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_kill_left_is_removed(tmp_path: Path, folder: bool) -> None:
    with replacing(tmp_path / "a.txt") as left:
        left.touch()
    if folder:
        left.mkdir()
        (left / "half").write_text("half")
    else:
        left.write_text("half")
    write_text(tmp_path / "a.txt", "whole")
    assert contents(tmp_path) == {"a.txt": b"whole"}


@pytest.mark.parametrize("fault", [ValueError("ours"), KeyboardInterrupt(), InputError("b.txt:3: broken")])
def test_a_fault_leaves_what_was_there(tmp_path: Path, fault: BaseException) -> None:
    write_text(tmp_path / "a.txt", "old")

    def broken() -> None:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise fault

    with pytest.raises(type(fault), match=f"^{fault}$"):
        broken()
    assert contents(tmp_path) == {"a.txt": b"old"}


def test_errors_speak_of_the_place(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught, replacing(tmp_path / "model") as temporary:
        raise InputError(f"{temporary / 'config.json'}: too deep")
    assert str(caught.value) == f"{tmp_path / 'model' / 'config.json'}: too deep"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("lance error: IO (os error 28), at line 3")]
)
def test_a_full_disk_is_one_line(error: Exception) -> None:
    message = "^cannot write a.txt: No space left on device; what was there before is untouched; make room or choose another"
    with pytest.raises(InputError, match=message), reported("a.txt"):
        raise error


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=f"^cannot write {tmp_path / 'file' / 'a.txt'}: "):
        write_text(tmp_path / "file" / "a.txt", "text")
    assert contents(tmp_path) == {"file": b"mine"}


def test_a_full_disk_leaves_every_old_file(tmp_path: Path, small_disk: None) -> None:
    tokenizer = train_tokenizer(WordPiece(vocab_size=60), ["the cat sat"])
    for name in ("tokenizer.json", "model.safetensors", "modules.json"):
        (tmp_path / name).write_text("old")
    before = contents(tmp_path)
    refused = f"^cannot write {tmp_path}/%s: {os.strerror(errno.EFBIG)}; what was there before is untouched; make room"
    with pytest.raises(InputError, match=refused % "tokenizer.json"):
        tokenizer.save(tmp_path)
    with pytest.raises(InputError, match=refused % "model.safetensors"):
        write_weights({"a": torch.zeros(1000)}, tmp_path)
    with pytest.raises(InputError, match=refused % "modules.json"):
        write_settings(EmbeddingSettings(), tmp_path, 8, 16)
    assert contents(tmp_path) == before
