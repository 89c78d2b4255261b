"""Weights in several files: of the size asked for, read by both, and nothing older left beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tests import references
from tests.references import CASES

import bothways
from bothways import files as writing
from bothways.errors import InputError
from bothways.model import weights
from bothways.model.model import Model

INDEX = "model.safetensors.index.json"


def weight_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "safetensors" in path.name or path.name.startswith("."))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    case = next(one for one in CASES if str(one) == "bert-masked_lm")
    return bothways.load(references.save(references.build(case), tmp_path / "theirs"))


def same(folder: Path, model: Model) -> bool:
    expected = model.state_dict()
    return all(torch.equal(tensor, expected[name]) for name, tensor in bothways.load(folder).state_dict().items())


def test_shards_of_a_size(model: Model, tmp_path: Path) -> None:
    """Each is within the size, all are in the index, and `transformers` reads them with nothing missing."""
    folder = model.save(tmp_path / "shards", max_shard_size="25KB")
    index = json.loads((folder / INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    count = len(files)
    assert count > 2
    assert files == [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    assert weight_files(folder) == sorted([*files, INDEX])
    whole = load_file(model.save(tmp_path / "whole") / "model.safetensors")
    assert set(index["weight_map"]) == set(whole)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    for file in files:
        with safe_open(folder / file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
        held = load_file(folder / file)
        assert sum(tensor.nbytes for tensor in held.values()) <= 25_000
        assert all(index["weight_map"][name] == file and torch.equal(tensor, whole[name]) for name, tensor in held.items())
    assert same(folder, model)
    case = next(one for one in CASES if str(one) == "bert-masked_lm")
    theirs = references.reload(case, folder).state_dict()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in whole.items())


def test_nothing_older_is_left(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    other = model.save(folder, max_shard_size=30_000) and weight_files(folder)
    (folder / "model-of-mine.safetensors").write_bytes(b"mine")
    for size in ("10KB", "30KB", None, "20KB", "5GB", "15 kb"):
        with torch.no_grad():
            model.encoder.embedding.tokens.weight.add_(1)
        model.save(folder, max_shard_size=size)
        files = [name for name in weight_files(folder) if name != "model-of-mine.safetensors"]
        assert same(folder, model)
        if size in (None, "5GB"):
            assert files == ["model.safetensors"]
        else:
            assert files == sorted({*json.loads((folder / INDEX).read_text())["weight_map"].values(), INDEX})
            assert (files == other) == (size == "30KB")
    assert (folder / "model-of-mine.safetensors").read_bytes() == b"mine"


def test_one_tensor_alone_may_be_larger(model: Model, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "shards", max_shard_size=1)
    assert len(weight_files(folder)) == len(load_file(tmp_path / "theirs" / "model.safetensors")) + 1
    assert same(folder, model)


@pytest.mark.parametrize("size", [0, -5, "0GB", "many", "5GiB", "", "5 G", "-1KB", "1e3"])
def test_a_size_that_is_none(model: Model, tmp_path: Path, size: int | str) -> None:
    with pytest.raises(InputError, match="is no size; give bytes"):
        model.save(tmp_path / "out", max_shard_size=size)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("before", [None, "20KB"])
def test_a_failure_while_writing_leaves_the_older_weights(
    model: Model, tmp_path: Path, before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third file cannot be written: no file of the new weights has taken its place."""
    folder = model.save(tmp_path / "model", max_shard_size=before)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model.encoder.embedding.tokens.weight.add_(1)
    write, calls = weights._save, 0

    def full(tensors: dict[str, torch.Tensor], file: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(28, "No space left on device")
        write(tensors, file)

    monkeypatch.setattr(weights, "_save", full)
    with pytest.raises(InputError, match=r"model-00003-of-000\d\d.safetensors: No space left on device"):
        model.save(folder, max_shard_size="20KB")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept
    assert all(torch.equal(tensor, expected[name]) for name, tensor in bothways.load(folder).state_dict().items())


def test_a_kill_between_two_shards_is_noticed(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never half of the older weights and half of the new ones."""
    folder = model.save(tmp_path / "model", max_shard_size="20KB")
    replace, done = Path.replace, 0

    def killed(self: Path, target: Path) -> Path:
        nonlocal done
        if target.suffix == ".safetensors":
            done += 1
            if done == 2:
                raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        model.save(folder, max_shard_size="20KB")
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        bothways.load(folder)


def test_all_is_on_the_disk_before_the_first_file_takes_its_place(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files first, then the older index goes, then shards come, and the new index last."""
    folder = model.save(tmp_path / "model", max_shard_size="20KB")
    tensors = load_file(model.save(tmp_path / "whole") / "model.safetensors")
    replace, unlink, sync, done = Path.replace, Path.unlink, writing.sync, list[str]()

    def replaced(self: Path, target: Path) -> Path:
        done.append(f"place {target.name}")
        return replace(self, target)

    def unlinked(self: Path, missing_ok: bool = False) -> None:
        if not self.name.startswith("."):
            done.append(f"remove {self.name}")
        unlink(self, missing_ok)

    def synced(path: Path) -> None:
        done.append(f"sync {path.name}")
        sync(path)

    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(Path, "unlink", unlinked)
    monkeypatch.setattr(writing, "sync", synced)
    weights.write_weights(tensors, folder, "20KB")
    shards = [*sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values())), INDEX]
    assert done == [
        *(f"sync .partial.{name}" for name in shards),
        *(f"remove {INDEX}", "sync model"),
        *(f"place {name}" for name in shards),
        "sync model",
    ]


def test_a_failure_between_two_shards_does_not_say_that_nothing_has_changed(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model.save(tmp_path / "model", max_shard_size="20KB")
    replace, done = Path.replace, 0

    def full(self: Path, target: Path) -> Path:
        nonlocal done
        done += 1
        if done == 2:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match="No space left on device; its older files may have gone") as error:
        model.save(folder, max_shard_size="20KB")
    assert "untouched" not in str(error.value)
    monkeypatch.undo()
    assert not list(folder.glob(".partial*"))
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        bothways.load(folder)
