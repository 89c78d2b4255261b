"""Checkpoints: a folder a step, complete or absent, without pickle.

    checkpoints/step-0001000/weights.safetensors    parameters and buffers; a shared tensor once
                             optimizer.safetensors  one tensor a parameter and quantity, "name/exp_avg"
                             mean.safetensors       the moving average of the weights, where a run has one
                             state.json             counters, the stream's position, the run
                             manifest.json          size and sha256 of the other files

A checkpoint is copied into memory (`snapshot`), and from there written under a hidden name, flushed to the disk and
renamed (`write`), by a thread of its own (`saving.py`). No random state is kept: the loop seeds every micro-batch by its
number. Sharded tensors are gathered, so the files are the same for any number of processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
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
from bothways.training.distributed import like, named_once, whole
from bothways.training.team import team
from bothways.training.trainable import State

FOLDER = "checkpoints"
WEIGHTS, OPTIMIZER, MEAN, STATE = "weights.safetensors", "optimizer.safetensors", "mean.safetensors", "state.json"
MANIFEST = "manifest.json"


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


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A copy, in the host's memory, of all that a checkpoint holds; training may go on while it is written."""

    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    position: Position
    mean: dict[str, Tensor]


@dataclass(frozen=True)
class _Written:
    """What the manifest says of a file."""

    bytes: int
    sha256: str


def snapshot(
    module: nn.Module, optimizer: torch.optim.Optimizer, position: Position, mean: Mapping[str, Tensor] | None = None
) -> Snapshot | None:
    """Copy weights, optimizer state and the mean of weights; None in all processes but the first.

    All must take part where tensors are sharded.
    """
    weights, moments, averaged = (
        {name: copied for name, tensor in tensors.items() if (copied := _copied(tensor)) is not None}
        for tensors in (named_once(module), _moments(module, optimizer), mean or {})
    )
    return Snapshot(weights, moments, position, averaged) if team().first else None


def save(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, position: Position, keep: int) -> Path:
    """`write` a `snapshot`, in a process alone."""
    saved = snapshot(module, optimizer, position)
    assert saved is not None
    return write(folder, saved, keep)


def write(folder: Path, saved: Snapshot, keep: int) -> Path:
    """Write `folder`'s checkpoint of a step, then remove all but the newest `keep`.

    Raises:
        InputError: it cannot be written (a full disk); the older ones are untouched.
    """
    final = place_of(folder, saved.position.step)
    place = final.parent
    if final.exists():  # the run was interrupted right after it
        return final
    before = latest(folder)
    kept = f"{before} is untouched" if before else "there is no earlier checkpoint"
    temporary = place / f".writing-{saved.position.step}"
    with reported(str(final), kept):
        try:
            _clean(place)
            temporary.mkdir(parents=True)
            manifest = {
                WEIGHTS: _write_tensors(temporary / WEIGHTS, saved.weights),
                OPTIMIZER: _write_tensors(temporary / OPTIMIZER, saved.moments),
                **({MEAN: _write_tensors(temporary / MEAN, saved.mean)} if saved.mean else {}),
                STATE: _write_json(temporary / STATE, asdict(saved.position)),
            }
            _write_json(temporary / MANIFEST, {name: asdict(written) for name, written in manifest.items()})
            sync(temporary)
            os.rename(temporary, final)
            sync(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    for old in complete(folder)[:-keep]:
        with reported(str(old), f"{final} is whole"):
            _remove(old)
    return final


def place_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return folder / FOLDER / f"step-{step:07d}"


def newest_whole(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose files are what was written; None where there is none at all.

    Newer ones that are damaged are set aside under another name, each told in a line.

    Raises:
        InputError: there are checkpoints, and none is whole.
    """
    faults: list[tuple[Path, str]] = []
    for place in reversed(complete(folder)):
        fault = damage(place)
        if fault is None:
            for bad, reason in faults:
                aside = bad.with_name(f"damaged-{bad.name}")
                shutil.rmtree(aside, ignore_errors=True)
                os.rename(bad, aside)
                say(f"{bad} is damaged ({reason}): renamed {aside.name}; going on from {place.name}")
            return place
        faults.append((place, fault))
    if not faults:
        return None
    listed = "; ".join(f"{place.name}: {fault}" for place, fault in faults)
    raise InputError(f"{folder / FOLDER}: no checkpoint is whole ({listed}); remove that folder to begin the run again")


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files, by their sizes and hashes; None where nothing is."""
    try:
        manifest = pydantic.TypeAdapter(dict[str, _Written]).validate_json((checkpoint / MANIFEST).read_bytes())
    except (OSError, pydantic.ValidationError):
        return f"{MANIFEST} is missing or damaged"
    if manifest.keys() - {MEAN} != {WEIGHTS, OPTIMIZER, STATE}:
        return f"{MANIFEST} does not name its files"
    for name, written in manifest.items():
        try:
            found = _described(checkpoint / name)
        except OSError as error:
            return f"{name}: {error.strerror or error}"
        if found.bytes != written.bytes:
            return f"{name} has {found.bytes:,} bytes, {written.bytes:,} were written"
        if found.sha256 != written.sha256:
            return f"the sha256 of {name} is not that of what was written"
    return None


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
    state = _state(checkpoint, module, optimizer)  # read before anything is changed
    load_weights(checkpoint, module)
    optimizer.load_state_dict(state)


def load_weights(checkpoint: Path, module: nn.Module) -> None:
    """Read the weights alone. Raises InputError as `load`."""
    _copy(checkpoint / WEIGHTS, named_once(module))


def load_mean(checkpoint: Path, mean: Mapping[str, Tensor]) -> None:
    """Read the mean of weights, in place. Raises InputError as `load`."""
    _copy(checkpoint / MEAN, mean)


def load_moments(checkpoint: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Read the optimizer's state alone, into a fresh one. Raises InputError as `load`."""
    optimizer.load_state_dict(_state(checkpoint, module, optimizer))


def _copy(path: Path, own: Mapping[str, Tensor]) -> None:
    saved = _read_tensors(path)
    _match(path, own, saved)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(like(saved[name], tensor))


def _state(checkpoint: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state as it takes it."""
    parameters = _optimized(module, optimizer)
    numbers = {name: number for number, (name, _) in enumerate(parameters)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _read_tensors(checkpoint / OPTIMIZER).items():
        name, _, quantity = key.rpartition("/")
        if name not in numbers:
            raise InputError(f"{checkpoint / OPTIMIZER}: {key} belongs to no trained parameter; it is another model's checkpoint")
        state.setdefault(numbers[name], {})[quantity] = like(tensor, parameters[numbers[name]][1])
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}


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


def _copied(tensor: Tensor) -> Tensor | None:
    gathered = whole(tensor.detach())
    return gathered.to("cpu", copy=True).contiguous() if team().first else None


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> _Written:
    try:
        save_file(tensors, path)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from error  # the library's only failure in writing is the disk's
    sync(path)
    return _described(path)


def _write_json(path: Path, value: object) -> _Written:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    sync(path)
    return _described(path)


def _described(path: Path) -> _Written:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _Written(path.stat().st_size, digest)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        mend = f"remove {path.parent.name} to go on from an earlier checkpoint"
        raise InputError(f"{path}: missing or truncated ({error}); {mend}") from None


def _match(path: Path, own: Mapping[str, Tensor], saved: dict[str, Tensor]) -> None:
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
