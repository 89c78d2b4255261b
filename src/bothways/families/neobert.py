"""NeoBERT (arXiv 2502.19587): pre-norm, RMS norms, SwiGLU, rotary, no biases but the decoder's, untied.

Its rotary pairs lie side by side and its `qkv` rows are ordered head by head; both are brought to our
order by one permutation of rows when the weights are read, and back when they are written.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bothways.encoder.config import EncoderConfig, Layer, Uniform
from bothways.families.convert import Reader, Rename, Rule, affine
from bothways.families.family import (
    INERT,
    Family,
    Heads,
    Inexpressible,
    Spec,
    attention_of,
    read_labels,
    read_problem,
    write_labels,
)
from bothways.layers.attention import Attention
from bothways.layers.embedding import Embedding
from bothways.layers.heads import ClassifierHead, MaskedLmHead, Transform
from bothways.layers.mlp import Gated
from bothways.layers.norm import RmsNorm
from bothways.layers.position import Rotary


def swiglu_size(intermediate_size: int) -> int:
    """Two thirds of the size the config names, up to a multiple of 8."""
    return -(-int(2 * intermediate_size / 3) // 8) * 8


def _intermediate_size(size: int) -> int:
    """The least size that a config can name for an MLP of this one."""
    if size % 8:
        raise Inexpressible("neobert", f"encoder's layers.0.mlp.size {size}, which is no multiple of 8")
    return next(n for n in range(size, 2 * size) if swiglu_size(n) == size)


def neobert(
    vocab_size: int = 30522,
    hidden_size: int = 768,
    num_layers: int = 28,
    heads: int = 12,
    intermediate_size: int = 3072,
    max_length: int = 4096,
    eps: float = 1e-5,
    dropout: float = 0.0,
    initializer_range: float = 0.02,
) -> EncoderConfig:
    """NeoBERT's encoder; the defaults are the released model's."""
    norm = RmsNorm(eps=eps)
    layer = Layer(
        mixer=Attention(heads=heads, position=Rotary(theta=10_000.0), bias=False),
        mlp=Gated(size=swiglu_size(intermediate_size), activation="silu", bias=False),
        norm=norm,
        order="pre",
        dropout=dropout,
    )
    return EncoderConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        max_length=max_length,
        embedding=Embedding(),
        layers=(layer,),
        final_norm=norm,
        initialisation=Uniform(bound=initializer_range),
    )


SIZES = {"base": neobert()}


def rows(heads: int, count: int) -> Tensor:
    """For each row of our qkv ([3, heads, half, pair]), its row in theirs ([heads, 3, pair, half])."""
    size = count // (3 * heads)
    theirs = torch.arange(count).view(heads, 3, size).transpose(0, 1)
    turned = theirs[:2].unflatten(2, (size // 2, 2)).transpose(2, 3).flatten(2)
    return torch.cat((turned, theirs[2:])).flatten()


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    reader.only("rms_norm", True)
    reader.only("rope", True)
    reader.only("ngpt", False)
    reader.only("hidden_act", "SwiGLU", "swiglu")
    reader.only("tie_word_embeddings", False, True)  # the class ignores it: its decoder is its own
    dropout = reader.dropout("dropout", 0.0)
    encoder = neobert(
        vocab_size=reader.need("vocab_size"),
        hidden_size=reader.get("hidden_size", 768),
        num_layers=reader.get("num_hidden_layers", 28),
        heads=reader.get("num_attention_heads", 12),
        intermediate_size=reader.get("intermediate_size", 3072),
        max_length=reader.get("max_length", 1024),
        eps=reader.get("norm_eps", 1e-6),
        dropout=dropout,
        initializer_range=reader.get("decoder_init_range", 0.02),
    )
    labels = read_labels(reader)
    tail = reader.dropout("classifier_dropout", 0.1)
    classifier = ClassifierHead(
        labels=len(labels) or reader.get("num_labels", 2),
        transform=Transform(activation="tanh"),
        dropout=tail,
        input_dropout=tail,
    )
    return Spec(
        encoder=encoder,
        heads=Heads(
            masked_lm=MaskedLmHead(transform=None, tied=False) if "masked_lm" in heads else None,
            classifier=classifier if "classifier" in heads else None,
        ),
        pad_id=reader.get("pad_token_id", 0),
        labels=labels,
        problem=read_problem(reader),
    )


def _write(spec: Spec) -> dict[str, Any]:
    encoder, layer, classifier = spec.encoder, spec.encoder.layer(0), spec.heads.classifier
    if not isinstance(layer.norm, RmsNorm):
        raise Inexpressible("neobert", "encoder's layers.0.norm")
    return {
        "model_type": "neobert",
        "vocab_size": encoder.vocab_size,
        "hidden_size": encoder.hidden_size,
        "num_hidden_layers": encoder.num_layers,
        "num_attention_heads": attention_of(layer).heads,
        "intermediate_size": _intermediate_size(layer.mlp.size),
        "max_length": encoder.max_length,
        "norm_eps": layer.norm.eps,
        "dropout": layer.dropout,
        "decoder_init_range": encoder.initialisation.spread,
        **({"classifier_dropout": classifier.dropout} if classifier else {}),
        "hidden_act": "SwiGLU",
        "rms_norm": True,
        "rope": True,
        "pad_token_id": spec.pad_id,
        "tie_word_embeddings": False,
        **write_labels(spec),
    }


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    ours, theirs = "encoder.layers.{i}.", prefix + "transformer_encoder.{i}."
    order = partial(rows, attention_of(spec.encoder.layer(0)).heads)
    rules: list[Rule] = [
        Rename("encoder.embedding.tokens.weight", f"{prefix}encoder.weight"),
        Rename(ours + "mixer.qkv.weight", theirs + "qkv.weight", order),
        Rename(ours + "mixer.out.weight", theirs + "wo.weight"),
        Rename(ours + "mlp.up.weight", theirs + "ffn.w12.weight"),
        Rename(ours + "mlp.down.weight", theirs + "ffn.w3.weight"),
        Rename(ours + "mixer_norm.weight", theirs + "attention_norm.weight"),
        Rename(ours + "mlp_norm.weight", theirs + "ffn_norm.weight"),
        Rename("encoder.final_norm.weight", f"{prefix}layer_norm.weight"),
    ]
    if spec.heads.masked_lm:
        rules += [
            Rename("heads.masked_lm.decoder.weight", "decoder.weight"),
            Rename("heads.masked_lm.bias", "decoder.bias"),
        ]
    if spec.heads.classifier:
        rules += affine("heads.classifier.transform.dense", "dense") + affine("heads.classifier.out", "classifier")
    return rules


def _architecture(heads: frozenset[str]) -> str:
    return "NeoBERTForSequenceClassification" if "classifier" in heads else "NeoBERTLMHead" if "masked_lm" in heads else "NeoBERT"


FAMILY = Family(
    name="neobert",
    inert=(*INERT, "initializer_range", "embedding_init_range", "flash_attention", "base_scale", "kwargs", "trust_remote_code"),
    marks={"masked_lm": "decoder.weight", "classifier": "classifier.weight"},
    prefix="model.",
    read=_read,
    write=_write,
    architecture=_architecture,
    rules=_rules,
    in_transformers=False,
)
