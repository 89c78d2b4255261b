"""MosaicBERT (arXiv 2312.17482): BERT with symmetric ALiBi in place of positions, and GeGLU.

Its configs name BERT's `model_type`; the key `alibi_starting_size`, or code in a file `bert_layers`,
tells them apart. There is no table of positions, so a length is a setting and no parameter:
`alibi_starting_size` is the longest sequence we take, and may be raised. The MLP's activation is the
exact gelu whatever the config says, and the head's norm has an eps of its own; both are fixed in the
released code. The first half of `gated_layers` is the one that is activated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from bothways.encoder.config import EncoderConfig, Layer, TruncatedNormal
from bothways.families.convert import Reader, Rename, Rule, Tied, affine
from bothways.families.family import (
    ACTIVATIONS,
    INERT,
    Family,
    Heads,
    Inexpressible,
    Spec,
    published_activation,
    read_labels,
    read_problem,
    write_labels,
)
from bothways.layers.activation import Activation
from bothways.layers.attention import Attention
from bothways.layers.embedding import Embedding
from bothways.layers.heads import ClassifierHead, MaskedLmHead, Transform
from bothways.layers.mlp import Gated
from bothways.layers.norm import LayerNorm
from bothways.layers.position import Alibi

_POOLER = Transform(activation="tanh")
_HEAD_NORM = LayerNorm(eps=1e-12)


def mosaicbert(
    vocab_size: int = 30528,
    hidden_size: int = 768,
    num_layers: int = 12,
    heads: int = 12,
    intermediate_size: int = 3072,
    max_length: int = 512,
    token_types: int = 2,
    dropout: float = 0.1,
    attention_dropout: float = 0.0,
    eps: float = 1e-12,
    initializer_range: float = 0.02,
) -> EncoderConfig:
    """MosaicBERT's encoder; the defaults are mosaic-bert-base, its vocabulary padded to a multiple of 8."""
    norm = LayerNorm(eps=eps)
    layer = Layer(
        # dropped out are what attention adds and the middle of the MLP, not what the MLP adds
        mixer=Attention(heads=heads, position=Alibi(), dropout=attention_dropout, out_dropout=dropout),
        mlp=Gated(size=intermediate_size, activation="gelu", bias=False, out_bias=True, dropout=dropout),
        norm=norm,
        order="post",
    )
    return EncoderConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        max_length=max_length,
        embedding=Embedding(token_types=token_types, norm=norm, dropout=dropout),
        layers=(layer,),
        initialisation=TruncatedNormal(std=initializer_range),
    )


SIZES = {"base": mosaicbert(), "large": mosaicbert(hidden_size=1024, num_layers=24, heads=16, intermediate_size=4096)}


def masked_lm_head(activation: Activation = "gelu") -> MaskedLmHead:
    """dense, activation and norm, then the tied vocabulary with a bias."""
    return MaskedLmHead(transform=Transform(activation=activation, norm=_HEAD_NORM))


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    reader.only("tie_word_embeddings", True)
    reader.only("is_decoder", False)
    reader.only("add_cross_attention", False)
    encoder = mosaicbert(
        vocab_size=reader.need("vocab_size"),
        hidden_size=reader.get("hidden_size", 768),
        num_layers=reader.get("num_hidden_layers", 12),
        heads=reader.get("num_attention_heads", 12),
        intermediate_size=reader.get("intermediate_size", 3072),
        max_length=reader.get("alibi_starting_size", 512),
        token_types=reader.get("type_vocab_size", 2),
        dropout=reader.dropout("hidden_dropout_prob", 0.1),
        attention_dropout=reader.dropout("attention_probs_dropout_prob", 0.1),
        eps=reader.get("layer_norm_eps", 1e-12),
        initializer_range=reader.get("initializer_range", 0.02),
    )
    activation = reader.choice("hidden_act", ACTIVATIONS, "gelu")
    labels = read_labels(reader)
    dropout = reader.dropout("classifier_dropout", encoder.embedding.dropout)
    classifier = ClassifierHead(labels=len(labels) or reader.get("num_labels", 2), transform=_POOLER, dropout=dropout)
    return Spec(
        encoder=encoder,
        heads=Heads(
            masked_lm=masked_lm_head(activation) if "masked_lm" in heads else None,
            classifier=classifier if "classifier" in heads else None,
            pooler=_POOLER if "pooler" in heads and "classifier" not in heads else None,
        ),
        pad_id=reader.get("pad_token_id", 0),
        labels=labels,
        problem=read_problem(reader),
    )


def _write(spec: Spec) -> dict[str, Any]:
    encoder, layer, heads = spec.encoder, spec.encoder.layer(0), spec.heads
    if not isinstance(layer.norm, LayerNorm):
        raise Inexpressible("mosaicbert", "encoder's layers.0.norm")
    transform = heads.masked_lm and heads.masked_lm.transform
    activation = published_activation("mosaicbert", transform.activation if transform else "gelu", "head's transform.activation")
    return {
        "model_type": "bert",
        "alibi_starting_size": encoder.max_length,
        "vocab_size": encoder.vocab_size,
        "hidden_size": encoder.hidden_size,
        "num_hidden_layers": encoder.num_layers,
        "num_attention_heads": layer.mixer.heads,
        "intermediate_size": layer.mlp.size,
        # read by tokenizers and by nothing else: there is no such table
        "max_position_embeddings": encoder.max_length,
        "type_vocab_size": encoder.embedding.token_types,
        "hidden_act": activation,
        "hidden_dropout_prob": encoder.embedding.dropout,
        "attention_probs_dropout_prob": layer.mixer.dropout,
        **({"classifier_dropout": heads.classifier.dropout} if heads.classifier else {}),
        "layer_norm_eps": layer.norm.eps,
        "initializer_range": encoder.initialisation.spread,
        "pad_token_id": spec.pad_id,
        "tie_word_embeddings": True,
        **write_labels(spec),
    }


def _body(prefix: str) -> list[Rule]:
    ours, theirs = "encoder.layers.{i}.", prefix + "encoder.layer.{i}."
    return [
        Rename("encoder.embedding.tokens.weight", f"{prefix}embeddings.word_embeddings.weight"),
        Rename("encoder.embedding.types.weight", f"{prefix}embeddings.token_type_embeddings.weight"),
        *affine("encoder.embedding.norm", f"{prefix}embeddings.LayerNorm"),
        *affine(ours + "mixer.qkv", theirs + "attention.self.Wqkv"),
        *affine(ours + "mixer.out", theirs + "attention.output.dense"),
        *affine(ours + "mixer_norm", theirs + "attention.output.LayerNorm"),
        *affine(ours + "mlp.up", theirs + "mlp.gated_layers", bias=False),
        *affine(ours + "mlp.down", theirs + "mlp.wo"),
        *affine(ours + "mlp_norm", theirs + "mlp.layernorm"),
    ]


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    rules, heads = _body(prefix), spec.heads
    if heads.masked_lm:
        rules += [
            *affine("heads.masked_lm.transform.dense", "cls.predictions.transform.dense"),
            *affine("heads.masked_lm.transform.norm", "cls.predictions.transform.LayerNorm"),
            Rename("heads.masked_lm.bias", "cls.predictions.decoder.bias"),
            Tied("cls.predictions.decoder.weight", f"{prefix}embeddings.word_embeddings.weight"),
        ]
    if heads.classifier:
        rules += affine("heads.classifier.transform.dense", f"{prefix}pooler.dense") + affine("heads.classifier.out", "classifier")
    if heads.pooler:
        rules += affine("heads.pooler.dense", f"{prefix}pooler.dense")
    return rules


def _claims(published: Mapping[str, Any]) -> bool:
    if published.get("model_type") not in (None, "bert"):
        return False
    code = published.get("auto_map")
    classes = code.values() if isinstance(code, dict) else ()
    return "alibi_starting_size" in published or any(str(name).split("--")[-1].startswith("bert_layers.") for name in classes)


FAMILY = Family(
    name="mosaicbert",
    inert=(*INERT, "max_position_embeddings", "position_embedding_type"),
    marks={
        "masked_lm": "cls.predictions.transform.dense.weight",
        "classifier": "classifier.weight",
        "pooler": "pooler.dense.weight",
    },
    prefix="bert.",
    read=_read,
    write=_write,
    architecture=lambda heads: "BertForSequenceClassification" if "classifier" in heads
    else "BertForMaskedLM" if "masked_lm" in heads else "BertModel",
    rules=_rules,
    claims=_claims,
)  # fmt: skip
