"""Checkpoints: a folder a step, complete or absent, without pickle.

    checkpoints/step-0001000/weights.safetensors    parameters and buffers; a shared tensor once
                             optimizer.safetensors  one tensor a parameter and quantity, "name/exp_avg"
                             state.json             counters, the stream's position, the run

A checkpoint is written under a hidden name, flushed to the disk and renamed. No random state is kept:
the loop seeds every micro-batch by its number.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pydantic
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bothways.errors import InputError
from bothways.files import reported, sync
from bothways.training.trainable import State

FOLDER = "checkpoints"
WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True)
class Position:
    """How far a run has come.

    Attributes:
        seconds: spent in steps, over all its restarts.
        stream: where the stream stands; None at its beginning.
        run: the run's config, as JSON, so that a checkpoint says whose it is.
    """

    step: int
    tokens: int
    seconds: float
    stream: State | None
    run: dict[str, Any]


def save(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, position: Position, keep: int) -> Path:
    """Write `folder`'s checkpoint of this step, then remove all but the newest `keep`.

    Raises:
        InputError: it cannot be written (a full disk); the older ones are untouched.
    """
    place = folder / FOLDER
    final = place / f"step-{position.step:07d}"
    if final.exists():  # the run was interrupted right after it
        return final
    before = latest(folder)
    kept = f"{before} is untouched" if before else "there is no earlier checkpoint"
    temporary = place / f".writing-{position.step}"
    with reported(str(final), kept):
        try:
            _clean(place)
            temporary.mkdir(parents=True)
            _write_tensors(temporary / WEIGHTS, _tensors(module))
            _write_tensors(temporary / OPTIMIZER, _moments(module, optimizer))
            (temporary / STATE).write_text(json.dumps(asdict(position), indent=2) + "\n", encoding="utf-8")
            sync(temporary / STATE)
            sync(temporary)
            os.rename(temporary, final)
            sync(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    for old in complete(folder)[:-keep]:
        _remove(old)
    return final


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a run's folder, or None."""
    return next(reversed(complete(folder)), None)


def position(checkpoint: Path) -> Position:
    """Read how far a checkpoint is.

    Raises:
        InputError: its state cannot be read.
    """
    path = checkpoint / STATE
    try:
        return pydantic.TypeAdapter(Position).validate_json(path.read_bytes())
    except (OSError, pydantic.ValidationError):
        raise InputError(f"{path}: missing or damaged; remove {checkpoint.name} to go on from an earlier checkpoint") from None


def load(checkpoint: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Read weights and optimizer state into a module and its fresh optimizer, in place, so that what is shared stays shared.

    Raises:
        InputError: a truncated file, or a tensor that is missing, too many, or of another shape; named.
    """
    load_moments(checkpoint, module, optimizer)
    load_weights(checkpoint, module)


def load_weights(checkpoint: Path, module: nn.Module) -> None:
    """Read the weights alone. Raises InputError as `load`."""
    own = _tensors(module)
    saved = _read_tensors(checkpoint / WEIGHTS)
    _match(checkpoint / WEIGHTS, own, saved)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])


def load_moments(checkpoint: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Read the optimizer's state alone, into a fresh one. Raises InputError as `load`."""
    numbers = {name: number for number, (name, _) in enumerate(_optimized(module, optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _read_tensors(checkpoint / OPTIMIZER).items():
        name, _, quantity = key.rpartition("/")
        if name not in numbers:
            raise InputError(f"{checkpoint / OPTIMIZER}: {key} belongs to no trained parameter; it is another model's checkpoint")
        state.setdefault(numbers[name], {})[quantity] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and persistent buffer once, under the first of its names."""
    names: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), (name, tensor.detach()))
    return dict(names.values())


def _optimized(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[tuple[str, Tensor]]:
    """The optimizer's parameters in its own order, by name."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return [(names[parameter], parameter) for group in optimizer.param_groups for parameter in group["params"]]


def _moments(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{quantity}": tensor
        for name, parameter in _optimized(module, optimizer)
        for quantity, tensor in optimizer.state.get(parameter, {}).items()
    }


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from error  # the library's only failure in writing is the disk's
    sync(path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        mend = f"remove {path.parent.name} to go on from an earlier checkpoint"
        raise InputError(f"{path}: missing or truncated ({error}); {mend}") from None


def _match(path: Path, own: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    for name, tensor in own.items():
        if name not in saved:
            raise InputError(f"{path}: no tensor {name}; it is another model's checkpoint")
        if saved[name].shape != tensor.shape:
            raise InputError(f"{path}: {name} is {tuple(saved[name].shape)}, this model needs {tuple(tensor.shape)}")
    extra = [name for name in saved if name not in own]
    if extra:
        raise InputError(f"{path}: {extra[0]} has no place in this model; it is another model's checkpoint")


def complete(folder: Path) -> list[Path]:
    """Checkpoints, oldest first; only the final rename gives a folder its name."""
    return sorted((folder / FOLDER).glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def _remove(checkpoint: Path) -> None:
    """Take a checkpoint's name away first, so that a half-removed one is never found."""
    hidden = checkpoint.with_name(f".removing-{checkpoint.name}")
    os.rename(checkpoint, hidden)
    shutil.rmtree(hidden)


def _clean(place: Path) -> None:
    """Remove what a killed process left behind."""
    with contextlib.suppress(FileNotFoundError):
        for leftover in place.glob(".*ing-*"):
            shutil.rmtree(leftover)
