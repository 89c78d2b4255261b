"""BERT (arXiv 1810.04805): post-norm, learned positions, token types, a pooler.

Its gelu is the exact one where the config says `gelu`; the original TensorFlow code used the tanh
approximation under that name, up to 1e-3 away in the logits.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from bothways.encoder.config import EncoderConfig, Layer, TruncatedNormal
from bothways.families.convert import Drop, Fuse, Reader, Rename, Rule, Tied, affine
from bothways.families.family import (
    ACTIVATIONS,
    INERT,
    Family,
    Heads,
    Inexpressible,
    Spec,
    attention_of,
    published_activation,
    read_labels,
    read_problem,
    read_types,
    write_labels,
)
from bothways.layers.activation import Activation
from bothways.layers.attention import Attention
from bothways.layers.embedding import Embedding
from bothways.layers.heads import ClassifierHead, MaskedLmHead, Transform
from bothways.layers.mlp import Plain
from bothways.layers.norm import LayerNorm
from bothways.layers.position import Learned

_POOLER = Transform(activation="tanh")


def bert(
    vocab_size: int = 30522,
    hidden_size: int = 768,
    num_layers: int = 12,
    heads: int = 12,
    intermediate_size: int = 3072,
    max_length: int = 512,
    token_types: int = 2,
    activation: str = "gelu",
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    eps: float = 1e-12,
    position_offset: int = 0,
    initializer_range: float = 0.02,
) -> EncoderConfig:
    """BERT's encoder; the defaults are bert-base-uncased."""
    norm = LayerNorm(eps=eps)
    layer = Layer(
        mixer=Attention(heads=heads, dropout=attention_dropout),
        mlp=Plain(size=intermediate_size, activation=activation),  # type: ignore[arg-type]
        norm=norm,
        order="post",
        dropout=dropout,
    )
    return EncoderConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        max_length=max_length,
        embedding=Embedding(token_types=token_types, position=Learned(offset=position_offset), norm=norm, dropout=dropout),
        layers=(layer,),
        initialisation=TruncatedNormal(std=initializer_range),
    )


SIZES = {
    "tiny": bert(hidden_size=128, num_layers=2, heads=2, intermediate_size=512),
    "mini": bert(hidden_size=256, num_layers=4, heads=4, intermediate_size=1024),
    "base": bert(),
    "large": bert(hidden_size=1024, num_layers=24, heads=16, intermediate_size=4096),
}


def read_encoder(reader: Reader, position_offset: int = 0, typed: bool = True) -> EncoderConfig:
    """The encoder of a BERT-shaped `config.json`; `typed` says whether the family has token types."""
    reader.only("position_embedding_type", "absolute")
    reader.only("tie_word_embeddings", True)
    reader.only("is_decoder", False)
    reader.only("add_cross_attention", False)
    return bert(
        vocab_size=reader.need("vocab_size"),
        hidden_size=reader.get("hidden_size", 768),
        num_layers=reader.get("num_hidden_layers", 12),
        heads=reader.get("num_attention_heads", 12),
        intermediate_size=reader.get("intermediate_size", 3072),
        max_length=reader.get("max_position_embeddings", 512) - position_offset,
        token_types=read_types(reader) if typed else 0,
        activation=reader.choice("hidden_act", ACTIVATIONS, "gelu"),
        dropout=reader.dropout("hidden_dropout_prob", 0.1),
        attention_dropout=reader.dropout("attention_probs_dropout_prob", 0.1),
        eps=reader.get("layer_norm_eps", 1e-12),
        position_offset=position_offset,
        initializer_range=reader.get("initializer_range", 0.02),
    )


def masked_lm_head(encoder: EncoderConfig, activation: Activation | None = None) -> MaskedLmHead:
    """dense, activation and norm, then the tied vocabulary with a bias. An `activation` of None is that of the layers."""
    layer = encoder.layer(0)
    return MaskedLmHead(transform=Transform(activation=activation or layer.mlp.activation, norm=layer.norm))


def read(reader: Reader, heads: Collection[str], typed: bool = True) -> Spec:
    encoder = read_encoder(reader, typed=typed)
    labels = read_labels(reader)
    dropout = reader.dropout("classifier_dropout", encoder.embedding.dropout)
    classifier = ClassifierHead(labels=len(labels) or reader.get("num_labels", 2), transform=_POOLER, dropout=dropout)
    return Spec(
        encoder=encoder,
        heads=Heads(
            masked_lm=masked_lm_head(encoder) if "masked_lm" in heads else None,
            classifier=classifier if "classifier" in heads else None,
            next_sentence=ClassifierHead(labels=2, transform=_POOLER) if "next_sentence" in heads else None,
            pooler=_POOLER if "pooler" in heads and not {"classifier", "next_sentence"} & set(heads) else None,
        ),
        pad_id=reader.get("pad_token_id", 0),
        labels=labels,
        problem=read_problem(reader),
    )


def write_encoder(spec: Spec, model_type: str, position_offset: int = 0) -> dict[str, Any]:
    """The `config.json` of a BERT-shaped encoder, in the spelling of every `transformers` version.

    Raises:
        Inexpressible: another norm of the embedding, an activation without a published name.
    """
    encoder, layer, classifier = spec.encoder, spec.encoder.layer(0), spec.heads.classifier
    if not isinstance(encoder.embedding.norm, LayerNorm):
        raise Inexpressible(model_type, "encoder's embedding.norm")
    return {
        "model_type": model_type,
        "vocab_size": encoder.vocab_size,
        "hidden_size": encoder.hidden_size,
        "num_hidden_layers": encoder.num_layers,
        "num_attention_heads": attention_of(layer).heads,
        "intermediate_size": layer.mlp.size,
        "max_position_embeddings": encoder.max_length + position_offset,
        "type_vocab_size": encoder.embedding.token_types,
        "hidden_act": published_activation(model_type, layer.mlp.activation, "encoder's layers.0.mlp.activation"),
        "hidden_dropout_prob": encoder.embedding.dropout,
        "attention_probs_dropout_prob": attention_of(layer).dropout,
        **({"classifier_dropout": classifier.dropout} if classifier else {}),
        "layer_norm_eps": encoder.embedding.norm.eps,
        "initializer_range": encoder.initialisation.spread,
        "pad_token_id": spec.pad_id,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        **write_labels(spec),
    }


def tables(prefix: str) -> list[Rule]:
    """The weights of a BERT-shaped embedding."""
    return [
        Rename("encoder.embedding.tokens.weight", f"{prefix}embeddings.word_embeddings.weight"),
        Rename("encoder.embedding.positions.weight", f"{prefix}embeddings.position_embeddings.weight"),
        Rename("encoder.embedding.types.weight", f"{prefix}embeddings.token_type_embeddings.weight"),
        *affine("encoder.embedding.norm", f"{prefix}embeddings.LayerNorm"),
        Drop(f"{prefix}embeddings.position_ids"),
        Drop(f"{prefix}embeddings.token_type_ids"),
    ]


def body(prefix: str) -> list[Rule]:
    """The weights of a BERT-shaped encoder under a prefix."""
    theirs = prefix + "encoder.layer.{i}."
    rules: list[Rule] = [
        *tables(prefix),
        *affine("encoder.layers.{i}.mixer.out", theirs + "attention.output.dense"),
        *affine("encoder.layers.{i}.mixer_norm", theirs + "attention.output.LayerNorm"),
        *affine("encoder.layers.{i}.mlp.up", theirs + "intermediate.dense"),
        *affine("encoder.layers.{i}.mlp.down", theirs + "output.dense"),
        *affine("encoder.layers.{i}.mlp_norm", theirs + "output.LayerNorm"),
    ]
    for part in ("weight", "bias"):
        separate = tuple(f"{theirs}attention.self.{name}.{part}" for name in ("query", "key", "value"))
        rules.append(Fuse(f"encoder.layers.{{i}}.mixer.qkv.{part}", separate))
    return rules


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    rules, heads = body(prefix), spec.heads
    if heads.masked_lm:
        rules += [
            *affine("heads.masked_lm.transform.dense", "cls.predictions.transform.dense"),
            *affine("heads.masked_lm.transform.norm", "cls.predictions.transform.LayerNorm"),
            Rename("heads.masked_lm.bias", "cls.predictions.bias"),
            Tied("cls.predictions.decoder.weight", f"{prefix}embeddings.word_embeddings.weight"),
            Tied("cls.predictions.decoder.bias", "cls.predictions.bias"),
        ]
    if heads.classifier:
        rules += [
            *affine("heads.classifier.transform.dense", f"{prefix}pooler.dense"),
            *affine("heads.classifier.out", "classifier"),
        ]
    if heads.next_sentence:
        rules += [
            *affine("heads.next_sentence.transform.dense", f"{prefix}pooler.dense"),
            *affine("heads.next_sentence.out", "cls.seq_relationship"),
        ]
    if heads.pooler:
        rules += affine("heads.pooler.dense", f"{prefix}pooler.dense")
    return rules


def _architecture(heads: frozenset[str]) -> str:
    if "classifier" in heads:
        return "BertForSequenceClassification"
    if "next_sentence" in heads:
        return "BertForPreTraining"
    return "BertForMaskedLM" if "masked_lm" in heads else "BertModel"


FAMILY = Family(
    name="bert",
    inert=INERT,
    marks={
        "masked_lm": "cls.predictions.transform.dense.weight",
        "next_sentence": "cls.seq_relationship.weight",
        "classifier": "classifier.weight",
        "pooler": "pooler.dense.weight",
    },
    prefix="bert.",
    read=read,
    write=lambda spec: write_encoder(spec, "bert"),
    architecture=_architecture,
    rules=_rules,
)
