"""Tensors in and out of a model folder: safetensors, sharded or whole; pickles only as weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from bothways.errors import InputError
from bothways.files import replace_together, replacing, reported

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
_INDEX = f"{SAFETENSORS}.index.json"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
# the files of weights that we write
_OURS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
# BERT's TensorFlow names for a norm's scale and shift, still in old files
_LEGACY = {"gamma": "weight", "beta": "bias"}


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model folder, on the CPU.

    Raises:
        InputError: no weights, a missing shard, a truncated file, a tensor held twice, or a pickle with more than tensors.
    """
    tensors: dict[str, Tensor] = {}
    for file in _files(folder):
        for name, tensor in _read(file).items():
            if _modern(name) in tensors:
                raise InputError(f"{file}: holds {name}, which the weights of {folder} have already; fetch the model again")
            tensors[_modern(name)] = tensor
    return tensors


def write_weights(tensors: Mapping[str, Tensor], folder: Path, max_shard_size: int | str | None = None) -> None:
    """Write `model.safetensors`, or shards of at most a size and their index; older ones of the other kind go.

    A kill leaves the older weights, the new ones, or an incomplete set that is refused: never a mixture.

    Args:
        max_shard_size: in bytes or as "5GB", with `transformers`' units; a larger tensor has a shard of its own.

    Raises:
        InputError: no such size, the disk is full or the folder cannot be written; the message says what became of older files.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    shards = _divide(plain, max_shard_size)
    if len(shards) == 1:
        with replacing(folder / SAFETENSORS) as temporary:
            _save(plain, temporary)
    else:
        found = {name: file for file, names in shards.items() for name in names}
        size = sum(tensor.numel() * tensor.element_size() for tensor in plain.values())
        index = json.dumps({"metadata": {"total_size": size}, "weight_map": found}, indent=2) + "\n"
        writers: dict[Path, Callable[[Path], object]] = {
            folder / file: partial(_save, {name: plain[name] for name in names}) for file, names in shards.items()
        }
        writers[folder / _INDEX] = lambda path: path.write_text(index, encoding="utf-8")
        replace_together(writers, folder / _INDEX)
    with reported(folder, "the new weights are there, and older ones beside them"):
        if len(shards) == 1:
            (folder / _INDEX).unlink(missing_ok=True)
        for file in folder.glob("model*.safetensors"):
            if file.name not in shards and _OURS.fullmatch(file.name):
                file.unlink()


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})


def _divide(tensors: dict[str, Tensor], max_shard_size: int | str | None) -> dict[str, list[str]]:
    """The names of the tensors of each file."""
    if max_shard_size is None:
        return {SAFETENSORS: list(tensors)}
    from huggingface_hub import split_state_dict_into_shards_factory  # brings its network's libraries

    return split_state_dict_into_shards_factory(
        tensors,
        get_storage_size=lambda tensor: tensor.numel() * tensor.element_size(),
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=_bytes(max_shard_size),
    ).filename_to_tensors


def _bytes(size: int | str) -> int:
    """A size in bytes; the units are those of `transformers`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT]B|)", str(size).strip().upper())
    count = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if count < 1:
        raise InputError(f"the largest size of a file of weights, {size!r}, is no size; give bytes, or such as '500MB' or '5GB'")
    return count


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
    """The files that an index names: of its own folder and kind, so that nothing else is ever read."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"{index}: not an index of weights; fetch it again") from None
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    for name in names:
        if not isinstance(name, str) or re.search(r"[/\\\0]", name) or Path(name).name != name or Path(name).suffix != suffix:
            raise InputError(f"{index}: names {name!r}, which is no {suffix} file of its folder; fetch it again")
    return sorted(names)


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(file)
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"{file}: truncated or not a safetensors file ({error}); fetch it again") from None
    loaded = read_pickle(file)
    return tensors_by_name(loaded, str(file))


def tensors_by_name(held: Any, where: str) -> dict[str, Tensor]:
    """What a pickle holds as weights.

    Raises:
        InputError: no dictionary of tensors by name.
    """
    if not isinstance(held, dict):
        raise InputError(f"{where}: refused: expected a dictionary of tensors")
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{where}: refused: expected a dictionary of tensors; {name!r} is none, or has no name")
    return dict(held)


def read_pickle(file: Path, also: Sequence[Any] = ()) -> Any:
    """What torch saved, as tensors and plain values; nothing in it is run.

    Args:
        also: types that may be made besides, or pairs of one and its name in the file.

    Raises:
        InputError: there is more in it, or it is damaged.
    """
    try:
        with torch.serialization.safe_globals(list(also)):
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from None
    except Exception as error:  # a damaged pickle makes torch stumble in any way: an index, a type, memory, an encoding
        raise InputError(f"{file}: refused: it holds more than tensors, or is truncated ({_reason(error)})") from None


def cast(tensor: Tensor, dtype: torch.dtype, name: str, where: str) -> Tensor:
    """A weight in another type.

    Raises:
        InputError: it has a value that the type cannot hold, which would become infinite unseen.
    """
    made = tensor.to(dtype)
    if tensor.is_floating_point() and torch.finfo(dtype).max < torch.finfo(tensor.dtype).max:
        lost = made.isinf() & ~tensor.isinf()
        if lost.any():
            value, kind, most = tensor[lost].abs().max().item(), str(dtype).removeprefix("torch."), torch.finfo(dtype).max
            raise InputError(f"{where}: {name} has {value:.6g}, and {kind} ends at {most:.6g}; use bfloat16 or float32")
    return made


def _reason(error: Exception) -> str:
    """What torch found, in a line: not its advice on how to run the file all the same."""
    text = str(error).strip()
    if named := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it names {named[1]}"
    found = re.search(r"WeightsUnpickler error:\s*([^\n]+)", text)
    line = found[1] if found else text.split("\n")[0] or type(error).__name__
    return line.split(". ")[0].strip()


def _modern(name: str) -> str:
    head, _, tail = name.rpartition(".")
    return f"{head}.{_LEGACY[tail]}" if tail in _LEGACY and head.endswith("LayerNorm") else name
