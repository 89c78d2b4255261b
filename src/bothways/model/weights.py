"""Tensors in and out of a model folder: safetensors, sharded or whole; pickles only as weights."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from bothways.errors import InputError
from bothways.files import replacing

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
# BERT's TensorFlow names for a norm's scale and shift, still in old files
_LEGACY = {"gamma": "weight", "beta": "bias"}


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model folder, on the CPU.

    Raises:
        InputError: no weights, a missing shard, a truncated file, or a pickle with more than tensors.
    """
    tensors: dict[str, Tensor] = {}
    for file in _files(folder):
        tensors.update(_read(file))
    return {_modern(name): tensor for name, tensor in tensors.items()}


def write_weights(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write a safetensors file.

    Raises:
        InputError: the disk is full or the folder cannot be written; an older file is left as it was.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(file) as temporary:
        safetensors.torch.save_file(plain, temporary, metadata={"format": "pt"})


def _files(folder: Path) -> list[Path]:
    for name in (SAFETENSORS, PICKLE):
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            shards = _shards(index)
            missing = [shard for shard in shards if not (folder / shard).exists()]
            if missing:
                raise InputError(f"{index}: names {missing[0]}, which is not there; the download is incomplete")
            return [folder / shard for shard in shards]
    raise InputError(f"{folder}: no {SAFETENSORS} (nor shards, nor {PICKLE})")


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"{index}: not an index of weights; fetch it again") from None


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(file)
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"{file}: truncated or not a safetensors file ({error}); fetch it again") from None
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{file}: refused: it holds more than tensors, or is truncated ({reason})") from None
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{file}: refused: expected a dictionary of tensors")
    return loaded


def _modern(name: str) -> str:
    head, _, tail = name.rpartition(".")
    return f"{head}.{_LEGACY[tail]}" if tail in _LEGACY and head.endswith("LayerNorm") else name
