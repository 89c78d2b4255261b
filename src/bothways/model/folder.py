"""Model folders: reading a published one, and writing one that others read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic
import torch
from tokenizers import normalizers
from torch import Tensor

from bothways.config import explain, to_json
from bothways.data.tokenizer import Tokenizer
from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError
from bothways.families import BY_NAME
from bothways.families.convert import Reader, expand, to_ours, to_theirs
from bothways.families.family import Family, Inexpressible, Spec
from bothways.files import read_object, write_text
from bothways.model.card import write_card
from bothways.model.model import Model
from bothways.model.settings import EmbeddingSettings, lowercases, read_settings, write_settings
from bothways.model.weights import cast, read_weights, write_weights

# README.md and LICENSE for the license and language that a card carries on
_FILES = ["*.json", "*.txt", "*.safetensors", "*/config.json", "README.md", "LICENSE"]
# fetched where there are no safetensors
_PICKLES = ["pytorch_model*.bin"]
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
# heads whose weights have the names of a sequence classifier's
_OTHER_HEADS = ("TokenClassification", "MultipleChoice", "QuestionAnswering")
# fields of configs that decide nothing once a network is trained
_TRAINING_ONLY = ("dropout", "out_dropout", "input_dropout", "initialisation")


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint, read: `config.json` and the weights as they are named there, and what comes with them.

    Attributes:
        folder: where it is.
        where: the file of the config, for errors.
        name: what the user called it.
        weights_in: the file of the weights, for errors; None is the folder.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    folder: Path
    where: str
    name: str
    tokenizer: Tokenizer | None = None
    settings: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    weights_in: str | None = None


def load(
    source: str | Path,
    family: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    strict: bool = False,
) -> Model:
    """Load a model from a folder, or from a Hugging Face repository by its id.

    Args:
        family: the family of a folder whose `config.json` has no `model_type`, or another family's.
        device: where to put it; None is CUDA where there is a GPU, else the CPU.
        dtype: of the weights; None is float32.
        strict: refuse unknown keys in `config.json` instead of warning of them.

    Raises:
        InputError: no such folder, an unsupported family or value, a weight missing, unknown or
            misshapen or too large for `dtype`, a damaged file, a tokenizer too large for the embedding.
    """
    folder = resolve(source)
    published = _config(folder)
    # an unknown family is told before all weights are read
    _family(published, family, str(folder / "config.json"), lambda: read_weights(folder))
    tokenizer = _tokenizer(folder) if any((folder / name).exists() for name in _TOKENIZER_FILES) else None
    where, settings = str(folder / "config.json"), read_settings(folder)
    checkpoint = Checkpoint(published, read_weights(folder), folder, where, str(source), tokenizer, settings)
    return build(checkpoint, family, device, dtype, strict)


def build(
    checkpoint: Checkpoint,
    family: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    strict: bool = False,
) -> Model:
    """The model that a checkpoint is; arguments and errors as `load`'s."""
    published, folder = checkpoint.config, checkpoint.folder
    chosen = _family(published, family, checkpoint.where, lambda: checkpoint.weights)
    reader = Reader(published, checkpoint.where)
    held = checkpoint.weights_in or str(folder)
    spec, weights = _specified(chosen, reader, checkpoint.weights)
    # before the weights: an unknown key often says why they do not fit
    _report_unknown(reader.unknown(chosen.inert), reader.where, strict)
    ours = _fitted(chosen, spec, weights, held)
    with torch.device("meta"):
        model = Model(chosen, spec, checkpoint.tokenizer, checkpoint.settings, checkpoint.name, published)
    model.load_state_dict({name: cast(tensor, dtype or torch.float32, name, held) for name, tensor in ours.items()}, assign=True)
    model.requires_grad_(True)
    if model.tokenizer is not None and model.tokenizer.vocab_size > spec.encoder.vocab_size:
        raise InputError(
            f"{folder}: the tokenizer has ids up to {model.tokenizer.vocab_size - 1}, "
            f"the embedding has {spec.encoder.vocab_size} rows"
        )
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def _specified(family: Family, reader: Reader, weights: dict[str, Tensor]) -> tuple[Spec, dict[str, Tensor]]:
    """What a family makes of a config, and the weights that it reads."""
    weights = _without_other_heads(_of_today(weights, family), family, reader)
    return _read(family, reader, _heads(family, weights)), weights


def _fitted(family: Family, spec: Spec, weights: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Our state dict from those weights."""
    prefix = family.prefix if any(name.startswith(family.prefix) for name in weights) else ""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Model(family, spec).state_dict().items()}
    return to_ours(expand(family.rules(spec, prefix), spec.encoder.modules), weights, shapes, where)


def write_model(model: Model, folder: Path, max_shard_size: int | str | None = None) -> Path:
    """Write config, weights, tokenizer, embedding settings and a card; `transformers` reads the result where it has the family.

    Args:
        max_shard_size: of a file of weights, in bytes or as "5GB"; None writes one file.

    Raises:
        InputError: no such size, the folder cannot be written, or the family cannot express the model. Files are moved
            into place one by one, whole.
    """
    check_expressed(model)
    config = _written(model)
    bare = model.spec.heads.present() <= {"pooler"}
    rules = expand(model.family.rules(model.spec, "" if bare else model.family.prefix), model.spec.encoder.modules)
    write_weights(to_theirs(rules, model.state_dict()), folder, max_shard_size)
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    if model.tokenizer is not None:
        model.tokenizer.save(folder)
    if model.settings.declared:
        write_settings(model.settings, folder, model.spec.encoder.hidden_size, model.spec.encoder.max_length)
    write_card(model, folder)
    return folder


def check_expressed(model: Model) -> None:
    """Make sure that the model's folder would be read as the same network: not every mixture has a published form.

    Raises:
        InputError: it would not; the message names what the family cannot express.
    """
    name, ours, heads = model.family.name, model.spec, model.spec.heads.present()
    model.family.check_bricks(ours.encoder)
    theirs = _read(model.family, Reader(_written(model), name), heads)
    _check_same(name, "encoder", _by_depth(ours.encoder), _by_depth(theirs.encoder))
    for head in sorted(heads):
        _check_same(name, f"{head} head", *(_tree(getattr(spec.heads, head)) for spec in (ours, theirs)))
    if ours.heads.classifier is not None:
        _check_same(name, "classifier's problem", ours.problem, theirs.problem)
        _check_same(name, "classifier's labels", ours.labels or theirs.labels, theirs.labels)


def _check_same(family: str, part: str, ours: Any, theirs: Any) -> None:
    one, other = dict(_leaves(ours)), dict(_leaves(theirs))
    # theirs first: where they have nothing at all, its path is the empty one
    differing = [path for path in {**other, **one} if one.get(path, ...) != other.get(path, ...)]
    if differing:
        more = f" and {len(differing) - 1} more" if differing[0] and len(differing) > 1 else ""
        raise Inexpressible(family, f"{part}'s {differing[0]}{more}" if differing[0] else part)


def _tree(config: object) -> Any:
    return json.loads(to_json(config))


def _by_depth(encoder: EncoderConfig) -> dict[str, Any]:
    """An encoder with its pattern of layers cycled over the depth, in which two spellings of one agree."""
    return {**_tree(encoder), "layers": {str(i): _tree(encoder.layer(i)) for i in range(encoder.num_layers)}}


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """What decides a trained network's numbers, by its path."""
    if not isinstance(tree, dict):
        yield path, tree
        return
    for key, value in tree.items():
        if key not in _TRAINING_ONLY:
            yield from _leaves(value, f"{path}.{key}" if path else key)


def _written(model: Model) -> dict[str, Any]:
    """The `config.json` of a model. Keys that we do not act on are kept as they came."""
    dtype = str(model.encoder.embedding.tokens.weight.dtype).removeprefix("torch.")
    written, published = model.family.write(model.spec), _without_code(model.published)
    if "id2label" in written:  # the number of classes is that of their names; `transformers` would prefer a stale one
        published.pop("num_labels", None)
    return {
        **published,
        **written,
        "architectures": [model.family.architecture(model.spec.heads.present())],
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def _without_code(published: Mapping[str, Any]) -> dict[str, Any]:
    """Without `auto_map` where it names code in the folder it came from, which is not written; code in a repository stays."""
    in_repository = "--" in str(published.get("auto_map"))
    return {key: value for key, value in published.items() if key != "auto_map" or in_repository}


def resolve(source: str | Path) -> Path:
    """The folder of a model: the one named, or what the hub has under this id.

    Raises:
        InputError: there is neither.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"{folder}: a model is a folder with config.json and weights, this is a file")
    if str(source).count("/") > 1 or str(source).startswith((".", "/", "~")):
        raise InputError(f"{source}: no such folder")
    from huggingface_hub import snapshot_download  # the network's library, only where it is needed

    try:
        found = Path(snapshot_download(str(source), allow_patterns=_FILES))
        return (
            found if list(found.glob("*.safetensors")) else Path(snapshot_download(str(source), allow_patterns=_FILES + _PICKLES))
        )
    except Exception as error:  # the hub's many errors (offline, not found, gated) all mean: not to be had
        raise InputError(f"{source}: no such folder, and the hub has no such model to give ({type(error).__name__})") from None


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.exists():
        others = "; another program's checkpoint is read by bothways convert" if _has_others(folder) else ""
        raise InputError(f"{folder}: no config.json; a model folder has one beside its weights{others}")
    return read_object(file)


def _has_others(folder: Path) -> bool:
    """Whether there is something that `import_model` might read (TensorFlow's, fairseq's or Composer's)."""
    return any(True for pattern in ("*.ckpt*.index", "*.pt") for _ in folder.glob(pattern))


def _family(published: dict[str, Any], family: str | None, where: str, weights: Callable[[], dict[str, Tensor]]) -> Family:
    claimed = next((one.name for one in BY_NAME.values() if one.claims(published)), None)
    name = family or claimed or published.get("model_type")
    if name is None:
        raise InputError(f"{where}: no model_type; say which family it is (family='bert'; --family bert)")
    if name in BY_NAME:
        return BY_NAME[name]
    supported = f"supported: {', '.join(BY_NAME)}"
    if not published.get("auto_map"):
        raise InputError(f"{where}: the family '{name}' is not supported; {supported}")
    fitting = [one.name for one in BY_NAME.values() if _fits(one, published, where, weights())]
    way_out = (
        f"its weights have the names and shapes of '{fitting[0]}': if it computes the same, family='{fitting[0]}' "
        f"(--family {fitting[0]}) reads it"
        if fitting
        else f"no supported family has weights of these names and shapes; {supported}"
    )
    raise InputError(f"{where}: the family '{name}' is code in the folder (auto_map), which is never run; {way_out}")


def _fits(family: Family, published: dict[str, Any], where: str, weights: dict[str, Tensor]) -> bool:
    try:
        _fitted(family, *_specified(family, Reader(published, where), weights), where)
    except InputError:
        return False
    return True


def _of_today(weights: dict[str, Tensor], family: Family) -> dict[str, Tensor]:
    """The weights with the body's names under the family's prefix, where they are under the one it was released with."""
    old, new = family.released_prefix, family.prefix
    return {new + name.removeprefix(old) if old and name.startswith(old) else name: one for name, one in weights.items()}


def _without_other_heads(weights: dict[str, Tensor], family: Family, reader: Reader) -> dict[str, Tensor]:
    """The weights of the encoder alone, where the head on it is one that we would take for a sequence classifier.

    They have the names of the bare model: the prefix of a body that has a head would tell of one (Llama's tied vocabulary).
    """
    strange = [name for name in reader.get("architectures", []) if str(name).endswith(_OTHER_HEADS)]
    body = {name: tensor for name, tensor in weights.items() if name.startswith(family.prefix)}
    left = sorted(set(weights) - set(body))
    if not strange or not body or not left:
        return weights
    message = f"{reader.where}: the head of {strange[0]} is not supported; the encoder is read without {', '.join(left)}"
    warnings.warn(message, stacklevel=4)
    return {name.removeprefix(family.prefix): tensor for name, tensor in body.items()}


def _tokenizer(folder: Path) -> Tokenizer:
    """The folder's tokenizer, which lowercases first where the sentence-transformers files say so."""
    tokenizer = Tokenizer.load(folder)
    if lowercases(folder):
        steps = [normalizers.Lowercase(), *([tokenizer.backend.normalizer] if tokenizer.backend.normalizer else [])]
        tokenizer.backend.normalizer = normalizers.Sequence(steps)
    return tokenizer


def _read(family: Family, reader: Reader, heads: Collection[str]) -> Spec:
    try:
        return family.read(reader, heads)
    except pydantic.ValidationError as error:
        raise InputError(f"{reader.where}: {explain(error, EncoderConfig)}") from None


def _heads(family: Family, weights: Collection[str]) -> frozenset[str]:
    return frozenset(head for head, mark in family.marks.items() if mark in weights or family.prefix + mark in weights)


def _report_unknown(keys: list[str], where: str, strict: bool) -> None:
    if not keys:
        return
    message = f"{where}: keys that this family does not know: {', '.join(keys)}"
    if strict:
        raise InputError(message)
    warnings.warn(message, stacklevel=4)
