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
from functools import partial
from typing import Any

from bothways.encoder.config import EncoderConfig, Layer, TruncatedNormal
from bothways.families.bert import FAMILY as BERT
from bothways.families.bert import write_encoder
from bothways.families.convert import Reader, Rename, Rule, Tied, affine
from bothways.families.family import Family, Spec, attention_of, class_name, published_activation
from bothways.layers.activation import Activation
from bothways.layers.attention import Attention
from bothways.layers.embedding import Embedding
from bothways.layers.heads import MaskedLmHead, Transform
from bothways.layers.mlp import Gated
from bothways.layers.norm import LayerNorm
from bothways.layers.position import Alibi

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
    plain = BERT.read(reader, heads)
    like, layer = plain.encoder, plain.encoder.layer(0)
    encoder = mosaicbert(
        vocab_size=like.vocab_size,
        hidden_size=like.hidden_size,
        num_layers=like.num_layers,
        heads=attention_of(layer).heads,
        intermediate_size=layer.mlp.size,
        max_length=reader.get("alibi_starting_size", 512),
        token_types=like.embedding.token_types,
        dropout=like.embedding.dropout,
        attention_dropout=attention_of(layer).dropout,
        eps=reader.get("layer_norm_eps", 1e-12),
        initializer_range=like.initialisation.spread,
    )
    masked_lm = masked_lm_head(layer.mlp.activation) if plain.heads.masked_lm else None
    return replace(plain, encoder=encoder, heads=replace(plain.heads, masked_lm=masked_lm))


def _write(spec: Spec) -> dict[str, Any]:
    head = spec.heads.masked_lm
    activation = head.transform.activation if head and head.transform else "gelu"
    return {
        **write_encoder(spec, "bert"),
        "hidden_act": published_activation("mosaicbert", activation, "head's transform.activation"),
        "alibi_starting_size": spec.encoder.max_length,
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
        rules += affine("heads.classifier.transform.dense", f"{prefix}pooler.dense")
        rules += affine("heads.classifier.out", "classifier")
    if heads.pooler:
        rules += affine("heads.pooler.dense", f"{prefix}pooler.dense")
    return rules


def _claims(published: Mapping[str, Any]) -> bool:
    # older M2-BERTs have the key too
    if published.get("model_type") not in (None, "bert") or published.get("monarch_mixer_sequence_mixing"):
        return False
    code = published.get("auto_map")
    classes = code.values() if isinstance(code, dict) else ()
    return "alibi_starting_size" in published or any(str(name).split("--")[-1].startswith("bert_layers.") for name in classes)


FAMILY = Family(
    name="mosaicbert",
    inert=BERT.inert,
    marks={head: mark for head, mark in BERT.marks.items() if head != "next_sentence"},
    prefix="bert.",
    read=_read,
    write=_write,
    architecture=partial(class_name, "Bert"),
    rules=_rules,
    claims=_claims,
    in_transformers=False,
)  # fmt: skip
