"""Checkpoints: complete or absent, exact, and of the right model."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest
import safetensors.torch
import torch

from bothways.errors import InputError
from bothways.training import checkpoint
from bothways.training.checkpoint import Position, latest, load, position, save
from bothways.training.optimizer import AdamW, build, default_groups, parameter_table
from bothways.training.step import step

from .toy import Stream, Toy

SETTINGS = AdamW(lr=0.01)


def trained(seed: int, steps: int = 3) -> tuple[Toy, torch.optim.Optimizer]:
    module, stream = Toy(seed=seed), Stream(None)
    module.dense.bias.requires_grad_(False)
    optimizer = build(SETTINGS, module, parameter_table(module, default_groups(SETTINGS, module)))
    for _ in range(steps):
        optimizer.zero_grad()
        step(module, [next(stream)], lambda _: None)
        optimizer.step()
    return module, optimizer


def at(number: int) -> Position:
    return Position(step=number, tokens=100 * number, seconds=1.5, stream={"batch": number}, run={"seed": 0})


def test_round_trip_is_exact(tmp_path: Path) -> None:
    module, optimizer = trained(seed=1)
    module.calls = module.calls + 5
    place = save(tmp_path, module, optimizer, at(3), keep=2)
    other, fresh = trained(seed=2, steps=0)
    load(place, other, fresh)
    assert position(place) == at(3)
    assert all(torch.equal(mine, yours) for mine, yours in zip(module.parameters(), other.parameters(), strict=True))
    assert other.calls == 5
    assert other.decoder.weight is other.embed.weight
    for parameter, copy in zip(module.parameters(), other.parameters(), strict=True):
        if not parameter.requires_grad:
            continue
        mine, yours = optimizer.state[parameter], fresh.state[copy]
        assert mine.keys() == yours.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(mine[key], yours[key]) for key in mine)


def test_a_shared_tensor_is_saved_once(tmp_path: Path) -> None:
    saved = safetensors.torch.load_file(save(tmp_path, *trained(seed=1), at(3), keep=2) / checkpoint.WEIGHTS)
    assert sorted(saved) == ["calls", "decoder.bias", "dense.bias", "dense.weight", "embed.weight", "norm.bias", "norm.weight"]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    module, optimizer = trained(seed=1)
    for number in (5, 900, 10_000_000, 20_000_000):
        save(tmp_path, module, optimizer, at(number), keep=2)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step-10000000", "step-20000000"]
    assert latest(tmp_path) == tmp_path / "checkpoints" / "step-20000000"
    assert latest(tmp_path / "elsewhere") is None


def test_what_a_kill_left_behind_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".writing-7").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".removing-step-0000001").mkdir()
    assert latest(tmp_path) is None
    save(tmp_path, *trained(seed=1), at(8), keep=2)
    assert os.listdir(tmp_path / "checkpoints") == ["step-0000008"]


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.STATE])
@pytest.mark.parametrize("size", [0, 5, 200])
def test_truncated_files_are_named(tmp_path: Path, name: str, size: int) -> None:
    place = save(tmp_path, *trained(seed=1), at(3), keep=2)
    os.truncate(place / name, size if name != checkpoint.STATE else size // 4)
    module, optimizer = trained(seed=2)
    before = [parameter.clone() for parameter in module.parameters()]
    with pytest.raises(InputError, match=f"{name}: missing or .*remove step-0000003"):
        assert position(place) == load(place, module, optimizer)
    assert all(torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"norm.bias": None}, "no tensor norm.bias"),
        ({"extra": torch.zeros(2)}, "extra has no place in this model"),
        ({"embed.weight": torch.zeros(12, 8)}, r"embed.weight is \(12, 8\), this model needs \(11, 8\)"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path: Path, changed: dict[str, torch.Tensor | None], message: str) -> None:
    place = save(tmp_path, *trained(seed=1), at(3), keep=2)
    file = place / checkpoint.WEIGHTS
    tensors = safetensors.torch.load_file(file) | changed
    safetensors.torch.save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)
    with pytest.raises(InputError, match=message):
        load(place, *trained(seed=2))


def test_moments_of_another_model_are_refused(tmp_path: Path) -> None:
    place = save(tmp_path, *trained(seed=1), at(3), keep=2)
    safetensors.torch.save_file({"strange/exp_avg": torch.zeros(2)}, place / checkpoint.OPTIMIZER)
    with pytest.raises(InputError, match="strange/exp_avg belongs to no trained parameter"):
        load(place, *trained(seed=2))


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, optimizer = trained(seed=1)
    save(tmp_path, module, optimizer, at(3), keep=1)
    real = checkpoint.save_file

    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if path.name == checkpoint.OPTIMIZER:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(InputError, match=r"step-0000006: No space left on device; .*step-0000003 is untouched; make room"):
        save(tmp_path, module, optimizer, at(6), keep=1)
    assert os.listdir(tmp_path / "checkpoints") == ["step-0000003"]
    load(tmp_path / "checkpoints" / "step-0000003", *trained(seed=2))


def test_a_write_that_the_system_cuts_short(tmp_path: Path) -> None:
    """As above, with the real refusal of a file above a size limit."""
    module, optimizer = trained(seed=1)
    save(tmp_path, module, optimizer, at(3), keep=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match=r"cannot write .*step-0000006: .*File too large"):
            save(tmp_path, module, optimizer, at(6), keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path / "checkpoints") == ["step-0000003"]
