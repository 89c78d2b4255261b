"""Model folders: reading a published one, and writing one that others read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydantic
import torch

from bothways.config import explain, to_json
from bothways.data.tokenizer import Tokenizer
from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError
from bothways.families import FAMILIES
from bothways.families.convert import Reader, expand, to_ours, to_theirs
from bothways.families.family import Family
from bothways.model.model import Model
from bothways.model.settings import read_settings, write_settings
from bothways.model.weights import SAFETENSORS, read_weights, write_weights

_FILES = ["*.json", "*.txt", "*.safetensors", "*/config.json"]
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")


def load(
    source: str | Path,
    family: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    strict: bool = False,
) -> Model:
    """Load a model from a folder, or from a Hugging Face repository by its id.

    Args:
        family: the family of a folder whose `config.json` has no `model_type`.
        device: where to put it; None is CUDA where there is a GPU, else the CPU.
        dtype: of the weights; None is float32.
        strict: refuse unknown keys in `config.json` instead of warning of them.

    Raises:
        InputError: no such folder, an unsupported family or value, a weight missing, unknown or
            misshapen, a damaged file, a tokenizer too large for the embedding.
    """
    folder = _resolve(source)
    published = _config(folder)
    chosen = _family(published, family, folder)
    weights = read_weights(folder)
    reader = Reader(published, str(folder / "config.json"))
    try:
        spec = chosen.read(reader, _heads(chosen, weights))
    except pydantic.ValidationError as error:
        raise InputError(f"{reader.where}: {explain(error, EncoderConfig)}") from None
    _report_unknown(reader.unknown(chosen.inert), reader.where, strict)
    prefix = chosen.prefix if any(name.startswith(chosen.prefix) for name in weights) else ""
    with torch.device("meta"):
        model = Model(chosen, spec, None, read_settings(folder), str(source), published)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    rules = expand(chosen.rules(spec, prefix), spec.encoder.num_layers)
    ours = to_ours(rules, weights, shapes, str(folder))
    model.load_state_dict({name: tensor.to(dtype or torch.float32) for name, tensor in ours.items()}, assign=True)
    model.requires_grad_(True)
    if any((folder / name).exists() for name in _TOKENIZER_FILES):
        model.tokenizer = Tokenizer.load(folder)
        if model.tokenizer.vocab_size > spec.encoder.vocab_size:
            raise InputError(
                f"{folder}: the tokenizer has ids up to {model.tokenizer.vocab_size - 1}, "
                f"the embedding has {spec.encoder.vocab_size} rows"
            )
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def write_model(model: Model, folder: Path) -> Path:
    """Write config, weights, tokenizer and embedding settings; `transformers` reads the result.

    Raises:
        InputError: the folder cannot be written. Files are moved into place one by one, whole.
    """
    heads = model.spec.heads.present()
    bare = heads <= {"pooler"}
    rules = expand(model.family.rules(model.spec, "" if bare else model.family.prefix), model.spec.encoder.num_layers)
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("_")}
    dtype = str(model.encoder.embedding.tokens.weight.dtype).removeprefix("torch.")
    config = {
        **model.published,
        **model.family.write(model.spec),
        "architectures": [model.family.architecture(heads)],
        "dtype": dtype,
        "torch_dtype": dtype,
    }
    _check_expressed(model, config, heads)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(to_theirs(rules, state), folder / SAFETENSORS)
        partial = folder / "config.json.partial"
        partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / "config.json")
        if model.tokenizer is not None:
            model.tokenizer.save(folder)
        if model.settings.declared:
            write_settings(model.settings, folder, model.spec.encoder.hidden_size, model.spec.encoder.max_length)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error}") from None
    return folder


def _check_expressed(model: Model, config: dict[str, Any], heads: Collection[str]) -> None:
    """Raise InputError where the written config would be read as another network: not every mixture has a published form."""
    read = model.family.read(Reader(config, model.family.name), heads).encoder
    ours, theirs = _network(model.spec.encoder), _network(read)
    differing = [name for name in ours if ours[name] != theirs[name]]
    if differing:
        raise InputError(
            f"the family '{model.family.name}' cannot express this encoder's {', '.join(differing)}; nothing was written"
        )


def _network(encoder: EncoderConfig) -> dict[str, Any]:
    """What decides an encoder's numbers once it is trained: everything but dropout and initialisation."""

    def bare(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {name: bare(value) for name, value in tree.items() if name not in ("dropout", "out_dropout", "initialisation")}
        return tree

    tree = bare(json.loads(to_json(replace(encoder, layers=encoder.layers[:1]))))
    depth = [bare(json.loads(to_json(encoder.layer(i)))) for i in range(encoder.num_layers)]
    return {**tree, "layers": depth}


def _resolve(source: str | Path) -> Path:
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"{folder}: a model is a folder with config.json and weights, this is a file")
    if str(source).count("/") > 1 or str(source).startswith((".", "/", "~")):
        raise InputError(f"{source}: no such folder")
    from huggingface_hub import snapshot_download  # the network's library, only where it is needed

    try:
        return Path(snapshot_download(str(source), allow_patterns=_FILES))
    except Exception as error:  # the hub's many errors (offline, not found, gated) all mean: not to be had
        raise InputError(f"{source}: no such folder, and the hub has no such model to give ({type(error).__name__})") from None


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.exists():
        raise InputError(f"{folder}: no config.json; a model folder has one beside its weights")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{file}: expected a JSON object")
    return data


def _family(published: dict[str, Any], family: str | None, folder: Path) -> Family:
    name = family or published.get("model_type")
    known = {one.name: one for one in FAMILIES}
    if name is None:
        raise InputError(f"{folder / 'config.json'}: no model_type; say which family it is (family='bert'; --family bert)")
    if name not in known:
        raise InputError(f"{folder / 'config.json'}: the family '{name}' is not supported; supported: {', '.join(known)}")
    return known[name]


def _heads(family: Family, weights: Collection[str]) -> frozenset[str]:
    return frozenset(head for head, mark in family.marks.items() if mark in weights or family.prefix + mark in weights)


def _report_unknown(keys: list[str], where: str, strict: bool) -> None:
    if not keys:
        return
    message = f"{where}: keys that this family does not know: {', '.join(keys)}"
    if strict:
        raise InputError(message)

    warnings.warn(message, stacklevel=3)
