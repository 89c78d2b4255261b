"""MosaicML Composer's checkpoints of Hugging Face models, MosaicBERT's among them."""

from __future__ import annotations

import datetime
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError
from bothways.files import read_object
from bothways.model.folder import Checkpoint


class _Ignored:
    """Stands for what numpy would make: it takes whatever it is given, and keeps nothing."""

    def __new__(cls, *_: object) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _plain() -> tuple[Any, ...]:
    """What a checkpoint may hold besides tensors and plain values: times, and the arrays of numpy's random state.

    The arrays are not wanted, and numpy's own functions build one over any memory that a file names: none is called.
    """
    kinds = ("bool", *np.typecodes["AllInteger"], *np.typecodes["Float"])
    names = {
        "numpy.ndarray",
        "numpy.dtype",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *(f"{kind.__module__}.{kind.__qualname__}" for kind in (type(np.dtype(name)) for name in kinds)),
    }
    return (datetime.timedelta, *((_Ignored, name) for name in sorted(names)))


PLAIN = _plain()


def read_composer(file: Path, state: Mapping[str, Any]) -> Checkpoint:
    """What torch loaded of a checkpoint. Its config and tokenizer are in it, or beside it.

    Raises:
        InputError: no config, or one that is no JSON object; a tokenizer that cannot be read.
    """
    inner = state["state"]
    weights = {name.removeprefix("model."): tensor for name, tensor in inner["model"].items()}
    hub = _under(inner, "integrations", "huggingface")
    config = _under(hub, "model", "config").get("content")
    beside = file.parent / "config.json"
    if config is None and not beside.exists():
        raise InputError(f"{file}: no config in it, and none beside it: put the model's config.json into {file.parent}")
    if config is None:
        config = read_object(beside)
    if not isinstance(config, dict):
        raise InputError(f"{file}: expected its config to be a JSON object")
    if isinstance(config.get("id2label"), Mapping):  # JSON's keys are texts
        config = {**config, "id2label": {str(key): name for key, name in config["id2label"].items()}}
    tokenizer = _tokenizer(_under(hub, "tokenizer"), str(file)) or _beside(file.parent)
    return Checkpoint(config, weights, file.parent, str(file), str(file), tokenizer, weights_in=str(file))


def _under(held: Any, *keys: str) -> Mapping[str, Any]:
    """What is under keys, one in the other; nothing where one leads nowhere."""
    for key in keys:
        held = held.get(key) if isinstance(held, Mapping) else None
    return held if isinstance(held, Mapping) else {}


def _tokenizer(files: Mapping[str, Any], where: str) -> Tokenizer | None:
    """From the contents of the tokenizer's files."""
    texts: dict[str, str] = {}
    try:
        for name, saved in files.items():
            kind, content = saved["file_extension"], saved["content"]
            if kind in (".json", ".txt"):
                text = json.dumps(content) if kind == ".json" else "".join(f"{line}\n" for line in content)
                texts[Path(name).name.removesuffix(kind) + kind] = text
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{where}: the tokenizer in it cannot be read ({error!r})") from None
    if not {"tokenizer.json", "vocab.txt", "vocab.json"} & set(texts):
        return None
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        try:
            return Tokenizer.load(Path(folder))
        except InputError as error:
            raise InputError(str(error).replace(folder, where)) from None


def _beside(folder: Path) -> Tokenizer | None:
    return Tokenizer.load(folder) if (folder / "tokenizer.json").exists() or (folder / "vocab.txt").exists() else None
