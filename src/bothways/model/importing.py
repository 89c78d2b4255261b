"""Checkpoints of other programs: TensorFlow 1 (BERT, ELECTRA, ALBERT), fairseq (RoBERTa, XLM-R), Composer (MosaicBERT).

A model folder is read by `bothways.load`; what is here is read once, and saved as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from bothways.errors import InputError
from bothways.model import composer, fairseq
from bothways.model.composer import read_composer
from bothways.model.fairseq import read_fairseq
from bothways.model.folder import build
from bothways.model.model import Model
from bothways.model.tensorflow import Part, read_tensorflow
from bothways.model.weights import PICKLE, SAFETENSORS, read_pickle, tensors_by_name

Origin = Literal["tf1", "fairseq", "composer"]

_FOLDERS = (SAFETENSORS, f"{SAFETENSORS}.index.json", PICKLE, f"{PICKLE}.index.json")


def is_foreign(source: str | Path) -> bool:
    """Whether there is another program's checkpoint here, and no model folder."""
    path = Path(source)
    if any((path / name).exists() for name in _FOLDERS):
        return False
    return _index(path) is not None or path.suffix == ".pt" or bool(list(path.glob("*.pt")))


def import_model(
    source: str | Path,
    origin: Origin | None = None,
    family: str | None = None,
    part: Part = "discriminator",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    strict: bool = False,
) -> Model:
    """The model of another program's checkpoint.

    Args:
        source: its folder, where it is the only one; else the file (`model.pt`), or TensorFlow's prefix (`bert_model.ckpt`).
        origin: the program, where the files do not tell.
        family: as in `bothways.load`.
        part: which network of an ELECTRA.
        device, dtype, strict: as in `bothways.load`.

    Raises:
        InputError: no such checkpoint, several, a damaged one, one with more than tensors and plain values, or a
            network that no family can read.
    """
    path = Path(source)
    prefix = _index(path)
    if origin == "tf1" or (origin is None and prefix is not None):
        if prefix is None:
            raise InputError(f"{path}: no TensorFlow checkpoint here (NAME.index with NAME.data-00000-of-00001)")
        checkpoint = read_tensorflow(prefix, part)
    else:
        file = _pickle(path)
        program, state = _loaded(file, origin)
        checkpoint = read_fairseq(file, state, family) if program == "fairseq" else read_composer(file, state)
    # whole, so that it is never taken for a repository's id
    return build(replace(checkpoint, name=str(path.absolute())), family, device, dtype, strict)


def _index(path: Path) -> Path | None:
    """The prefix of the TensorFlow checkpoint that a path means; None where it means none."""
    if path.suffix == ".index" and path.is_file():
        return path.with_suffix("")
    if path.name and path.with_name(path.name + ".index").is_file():
        return path
    found = sorted(path.glob("*.index")) if path.is_dir() else []
    if len(found) > 1:
        names = ", ".join(file.stem for file in found)
        raise InputError(f"{path}: {len(found)} TensorFlow checkpoints ({names}); name one, {found[0].with_suffix('')}")
    return found[0].with_suffix("") if found else None


def _pickle(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("*.pt"))
    if not found:
        raise InputError(f"{path}: no checkpoint of TensorFlow (NAME.index), fairseq or Composer (*.pt)")
    if len(found) > 1:
        raise InputError(f"{path}: {len(found)} checkpoints ({', '.join(file.name for file in found)}); name one")
    return found[0]


def _loaded(file: Path, origin: Origin | None) -> tuple[Origin, Mapping[str, Any]]:
    """The program and what its file holds; nothing in it is run, whatever it is."""
    plain = {"fairseq": fairseq.PLAIN, "composer": composer.PLAIN}
    state = read_pickle(file, plain.get(origin or "", fairseq.PLAIN + composer.PLAIN))
    inner = state.get("state") if isinstance(state, dict) else None
    if origin != "composer" and isinstance(state, dict) and isinstance(state.get("model"), dict) and {"args", "cfg"} & set(state):
        return "fairseq", {**state, "model": tensors_by_name(state["model"], str(file))}
    if origin != "fairseq" and isinstance(inner, dict) and isinstance(inner.get("model"), dict):
        return "composer", {**state, "state": {**inner, "model": tensors_by_name(inner["model"], f"{file}: state.model")}}
    program = {"fairseq": "fairseq", "composer": "Composer"}.get(origin or "", "fairseq or Composer")
    raise InputError(f"{file}: no checkpoint of {program}; weights alone belong into a model folder, as pytorch_model.bin")
