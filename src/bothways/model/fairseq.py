"""fairseq's RoBERTa and XLM-R (`model.pt` with `dict.txt`), in the names of model folders."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError
from bothways.model.folder import Checkpoint

# what a checkpoint may hold besides tensors and plain values
PLAIN = (argparse.Namespace,)
# the padding is token 1, and positions count on from it
_PAD = 1
_LAYER = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.output.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "output.LayerNorm",
}
_EMBEDDINGS = {
    "embed_tokens": "word_embeddings",
    "embed_positions": "position_embeddings",
    "emb_layer_norm": "LayerNorm",
    "layernorm_embedding": "LayerNorm",
}
# fairseq's `gelu_accurate` is the approximation by tanh; `gelu_fast` is its older name
_ACTIVATIONS = {"gelu_accurate": "gelu_new", "gelu_fast": "gelu_new"}
_HEADS = {"lm_head.weight": "lm_head.decoder.weight"}


def read_fairseq(file: Path, state: Mapping[str, Any], family: str | None = None) -> Checkpoint:
    """What torch loaded of a checkpoint, with the word list beside it.

    Raises:
        InputError: no RoBERTa, several classifiers, or a head whose activation the family cannot express.
    """
    settings = _settings(state)
    # buffers: the version of the layout, and a float to tell the device by
    tensors = {name: tensor for name, tensor in state["model"].items() if not name.endswith(("version", "_float_tensor"))}
    weights = published_weights(tensors, str(file))
    body = "roberta.embeddings."
    table, positions = weights.get(body + "word_embeddings.weight"), weights.get(body + "position_embeddings.weight")
    if table is None or positions is None or table.dim() != 2 or positions.dim() != 2:
        raise InputError(f"{file}: a fairseq checkpoint, but of no RoBERTa")
    if not isinstance(settings.get("encoder_attention_heads"), int):
        raise InputError(f"{file}: its options (args, cfg.model) lack encoder_attention_heads, which the weights do not show")
    activation = settings.get("activation_fn", "gelu")
    _check_heads(weights, settings, activation, file)
    inner = weights.get("roberta.encoder.layer.0.intermediate.dense.bias")
    weights[body + "token_type_embeddings.weight"] = torch.zeros(1, table.shape[1])  # theirs have none: all alike
    spaced = (file.parent / "sentencepiece.bpe.model").exists() or settings.get("bpe") == "sentencepiece"
    config = {
        "model_type": family or ("xlm-roberta" if spaced else "roberta"),
        "vocab_size": len(table),
        "hidden_size": table.shape[1],
        "num_hidden_layers": sum(name.endswith("intermediate.dense.bias") for name in weights),
        "num_attention_heads": settings["encoder_attention_heads"],
        "intermediate_size": settings.get("encoder_ffn_embed_dim", 0 if inner is None else inner.numel()),
        "max_position_embeddings": len(positions),
        "type_vocab_size": 1,
        "hidden_act": _ACTIVATIONS.get(str(activation), activation),
        "hidden_dropout_prob": settings.get("dropout", 0.1),
        "attention_probs_dropout_prob": settings.get("attention_dropout", 0.1),
        "layer_norm_eps": 1e-5,
        "pad_token_id": _PAD,
    }
    if "classifier.out_proj.weight" in weights:
        config["num_labels"] = weights["classifier.out_proj.weight"].shape[:1].numel()
    tokenizer = _tokenizer(file.parent, len(positions) - _PAD - 1)
    return Checkpoint(config, weights, file.parent, str(file), str(file), tokenizer, weights_in=str(file))


def _check_heads(weights: Mapping[str, Tensor], settings: Mapping[str, Any], activation: str, file: Path) -> None:
    """Model folders' heads have one activation each: tanh before the classes, gelu before the words."""
    pooler = settings.get("pooler_activation_fn", "tanh")
    if "classifier.out_proj.weight" in weights and pooler != "tanh":
        raise InputError(f"{file}: pooler_activation_fn {pooler!r} is not supported; a RoBERTa's classifier has 'tanh'")
    if "lm_head.dense.weight" in weights and activation != "gelu":
        raise InputError(f"{file}: activation_fn {activation!r} is not supported with lm_head; a RoBERTa's has 'gelu'")


def published_weights(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Weights by their names in a model folder; one that has none keeps its own.

    Raises:
        InputError: classifiers of several names, or a fused matrix that is not of three.
    """
    heads = {match[1] for name in tensors if (match := re.match(r"classification_heads\.([^.]+)\.", name))}
    if len(heads) > 1:
        raise InputError(f"{where}: {len(heads)} classifiers ({', '.join(sorted(heads))}); a model folder holds one")
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if fused := re.fullmatch(r"(.*self_attn\.)in_proj_(weight|bias)", name):
            if not tensor.dim() or len(tensor) % 3:
                raise InputError(f"{where}: {name} does not divide into query, key and value")
            for part, one in zip("qkv", tensor.chunk(3), strict=True):
                found[_published(f"{fused[1]}{part}_proj.{fused[2]}")] = one.clone()
        else:
            found[_published(name)] = tensor
    return found


def _published(name: str) -> str:
    inner = re.sub(r"^(encoder|decoder)\.", "", name)  # `decoder` before version 0.9
    if match := re.fullmatch(r"sentence_encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", inner):
        number, part, kind = match.groups()
        return f"roberta.encoder.layer.{number}.{_LAYER[part]}.{kind}" if part in _LAYER else name
    if match := re.fullmatch(r"sentence_encoder\.(\w+)\.(weight|bias)", inner):
        return f"roberta.embeddings.{_EMBEDDINGS[match[1]]}.{match[2]}" if match[1] in _EMBEDDINGS else name
    if match := re.fullmatch(r"classification_heads\.[^.]+\.(.+)", inner):
        return f"classifier.{match[1]}"
    return _HEADS.get(inner, inner if inner.startswith("lm_head.") else name)


def _settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """The options of training, which older versions keep under `args` and newer ones under `cfg`."""
    given = state.get("args")
    if given is None:
        cfg = state.get("cfg")
        given = cfg.get("model") if isinstance(cfg, Mapping) else None
    return vars(given) if isinstance(given, argparse.Namespace) else dict(given) if isinstance(given, Mapping) else {}


def _tokenizer(folder: Path, max_length: int) -> Tokenizer | None:
    """Of `dict.txt`, whose words are numbers of GPT-2's tokens, and GPT-2's own `encoder.json` and `vocab.bpe` beside it."""
    files = [folder / name for name in ("dict.txt", "encoder.json", "vocab.bpe")]
    if not all(file.exists() for file in files):
        missing = ", ".join(file.name for file in files if not file.exists())
        message = f"{folder}: without {missing} there is no tokenizer; put a tokenizer.json beside what is written"
        warnings.warn(message, stacklevel=4)
        return None
    try:
        tokens = {number: token for token, number in json.loads(files[1].read_text(encoding="utf-8")).items()}
        rows = [line.rsplit(" ", 1)[0] for line in files[0].read_text(encoding="utf-8").splitlines()]
        words = [tokens[int(row)] if row.isdecimal() else row for row in rows]
        merges = files[2].read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{folder}: not utf-8 in dict.txt, encoder.json or vocab.bpe ({error}); fetch them again") from None
    except (ValueError, AttributeError, LookupError) as error:
        raise InputError(f"{folder}: dict.txt and encoder.json do not go together ({error!r}); fetch them again") from None
    vocabulary = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *words, "<mask>"])}
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (Path(name) / "merges.txt").write_text(merges, encoding="utf-8")
        try:
            tokenizer = Tokenizer.load(Path(name))
        except InputError as error:
            raise InputError(str(error).replace(name, str(folder))) from None
    tokenizer.max_length = max_length
    return tokenizer
