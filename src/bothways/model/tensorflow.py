"""google-research's TensorFlow 1 checkpoints of BERT, ELECTRA and ALBERT, in the names of model folders.

Kernels are transposed, `gamma` and `beta` are a norm's weight and bias. What only an optimiser had is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError
from bothways.files import read_object
from bothways.model.folder import Checkpoint
from bothways.model.tensor_bundle import TensorBundle

Kind = Literal["bert", "electra", "albert"]
# which of an ELECTRA checkpoint's two networks
Part = Literal["discriminator", "generator"]

# what training keeps beside the weights: moments, counters, and ELECTRA's temperature of sampling
_NOT_WEIGHTS = {
    *("adam_m", "adam_v", "AdamWeightDecayOptimizer", "AdamWeightDecayOptimizer_1"),
    *("global_step", "beta1_power", "beta2_power", "temperature"),
}
_CONFIGS = ("bert_config.json", "albert_config.json", "electra_config.json", "config.json")
_LAST = {"kernel": "weight", "gamma": "weight", "beta": "bias", "output_weights": "weight", "output_bias": "bias"}
# ALBERT's scopes, each replaced wherever it stands, in this order
_ALBERT = {
    "bert/encoder/transformer/group_": "bert/encoder/albert_layer_groups/",
    "/inner_group_": "/albert_layers/",
    "/attention_1/self/": "/attention/",
    "/attention_1/output/": "/attention/",
    "/LayerNorm_1/": "/full_layer_layer_norm/",
    "/ffn_1/intermediate/output/dense/": "/ffn_output/",
    "/ffn_1/intermediate/dense/": "/ffn/",
    "bert/pooler/dense/": "bert/pooler/",
    "cls/predictions/transform/": "predictions/",
    "cls/predictions/": "predictions/",
    "cls/seq_relationship/": "sop_classifier/classifier/",
}
# heads by hidden size of the released ELECTRAs (arXiv 2003.10555), whose checkpoints come without a config
_ELECTRA_HEADS = {256: 4, 768: 12, 1024: 16}
# of a hundred words, how many begin with a capital in a vocabulary that keeps capitals, at the least
_CAPITALS = 1


def read_tensorflow(prefix: Path, part: Part = "discriminator") -> Checkpoint:
    """A checkpoint, its config and its word list.

    Args:
        prefix: the checkpoint's name without suffix, `folder/bert_model.ckpt`.

    Raises:
        InputError: damaged or missing files, no config, a part that is not there, or a network that is none of the three.
    """
    bundle = TensorBundle(prefix)
    kind = kind_of(bundle.entries, str(prefix))
    names = published_names(bundle.entries, kind, part)
    if kind == "electra" and not any(name.startswith("electra.encoder.") for name in names.values()):
        raise InputError(f"{prefix}: holds no {part}; give the other part, or another checkpoint")
    weights = {theirs: _transposed(bundle.read(name), name) for name, theirs in names.items()}
    folder = prefix.parent
    file = next((folder / name for name in _CONFIGS if (folder / name).exists()), None)
    if file is None and kind != "electra":
        raise InputError(f"{folder}: no {kind}_config.json beside the checkpoint; it says what the weights do not")
    config = _electra_config(weights, str(prefix)) if file is None else read_object(file)
    if kind == "albert":
        config = {**config, "hidden_act": _albert_activation(config)}
    labels = weights.get("classifier.weight")
    if labels is not None:
        config = {"num_labels": labels.shape[:1].numel(), **config}
    config = {**config, "model_type": kind, "architectures": [] if "qa_outputs.weight" not in weights else ["QuestionAnswering"]}
    return Checkpoint(config, weights, folder, str(file or prefix), str(prefix), _tokenizer(folder), weights_in=str(prefix))


def kind_of(names: Iterable[str], where: str) -> Kind:
    """Which network a checkpoint's names are of.

    Raises:
        InputError: none of the three.
    """
    scopes = {name.removeprefix("module/") for name in names}
    if any(name.startswith("electra/") for name in scopes):
        return "electra"
    if any(name.startswith("bert/encoder/embedding_hidden_mapping_in/") for name in scopes):
        return "albert"
    if "bert/embeddings/word_embeddings" in scopes:
        return "bert"
    raise InputError(f"{where}: a TensorFlow checkpoint, but of no BERT, ELECTRA or ALBERT as google-research wrote them")


def published_names(names: Iterable[str], kind: Kind, part: Part = "discriminator") -> dict[str, str]:
    """For each weight of a checkpoint its name in a model folder; what is no weight (of this part) is left out."""
    kept = [name for name in names if not _NOT_WEIGHTS & set(name.split("/"))]
    if kind == "electra":
        scopes = {name: scope for name in kept if (scope := _electra(name, kept, part)) is not None}
    else:
        scopes = {name: _albert(name) if kind == "albert" else _bert(name) for name in kept}
    return {name: _dotted(scope) for name, scope in scopes.items()}


def _bert(name: str) -> str:
    name = name.removeprefix("module/").replace("cls/squad/", "qa_outputs/")
    return f"classifier/{name}" if "/" not in name else name


def _albert(name: str) -> str:
    name = name.removeprefix("module/")
    for scope, published in _ALBERT.items():
        name = name.replace(scope, published)
    # what is left under the layer's name alone is the norm behind its attention
    name = re.sub(r"(albert_layers/\d+)/LayerNorm/", r"\1/attention/LayerNorm/", name)
    name = re.sub(r"^bert/", "albert/", name)
    return f"classifier/{name}" if "/" not in name else name


def _electra(name: str, names: Iterable[str], part: Part) -> str | None:
    """The discriminator is under `electra`, the generator under `generator`, the embeddings they share under the first."""
    if part == "discriminator":
        if name.startswith(("generator/", "generator_predictions/")):
            return None
        return name.replace("discriminator_predictions/dense_1/", "discriminator_predictions/dense_prediction/")
    shared = not any(other.startswith("generator/embeddings/") for other in names)
    if name.startswith("discriminator_predictions/"):
        return None
    if name.startswith("electra/"):
        return name if shared and name.startswith("electra/embeddings/") else None
    name = name.replace("generator_predictions/output_bias", "generator_lm_head/output_bias")
    return re.sub(r"^generator/", "electra/", name)


def _dotted(scope: str) -> str:
    *path, last = scope.split("/")
    last = f"{last}.weight" if last.endswith("_embeddings") else _LAST.get(last, last)
    return ".".join(re.sub(r"^layer_(\d+)$", r"layer.\1", one) for one in (*path, last))


def _transposed(tensor: Tensor, name: str) -> Tensor:
    return tensor.T.contiguous() if name.endswith("/kernel") else tensor


def _electra_config(weights: dict[str, Tensor], where: str) -> dict[str, Any]:
    """What the released checkpoints, which have no config, say by their shapes."""
    layer, embeddings = "electra.encoder.layer.0", "electra.embeddings"
    names = [f"{layer}.attention.self.query.weight", f"{layer}.intermediate.dense.weight"]
    names += [f"{embeddings}.{one}_embeddings.weight" for one in ("word", "position", "token_type")]
    if missing := next((name for name in names if name not in weights or weights[name].dim() != 2), None):
        raise InputError(f"{where}: no matrix {missing} in it; the checkpoint is damaged, or of another network")
    query, inner, words, positions, types = (weights[name] for name in names)
    hidden = len(query)
    if hidden not in _ELECTRA_HEADS:
        raise InputError(
            f"{where}: no electra_config.json beside it, and {hidden} is no released hidden size, "
            "so the number of heads is not known; put one there"
        )
    return {
        "vocab_size": len(words),
        "embedding_size": words.shape[1],
        "hidden_size": hidden,
        "num_hidden_layers": sum(name.endswith("intermediate.dense.bias") for name in weights),
        "num_attention_heads": _ELECTRA_HEADS[hidden],
        "intermediate_size": len(inner),
        "max_position_embeddings": len(positions),
        "type_vocab_size": len(types),
    }


def _albert_activation(config: dict[str, Any]) -> str:
    """The published name of ALBERT's activation, whose code computes the tanh approximation and calls it `gelu`.

    The second release, whose layers drop out nothing, was converted under its true name; the first as the exact gelu.
    """
    named = config.get("hidden_act", "gelu")
    return "gelu_new" if named == "gelu" and not config.get("hidden_dropout_prob", 0.0) else named


def _tokenizer(folder: Path) -> Tokenizer | None:
    """Of the word list beside the checkpoint. The releases do not say whether capitals are kept; the list shows it."""
    file = folder / "vocab.txt"
    if not file.exists():
        return None
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not utf-8 at byte {error.start}; fetch it again") from None
    words = [word for word in text.split("\n") if not word.startswith("[")]
    capitals = sum(word != word.lower() for word in words)
    return Tokenizer.load(folder, lowercase=100 * capitals < _CAPITALS * len(words))
