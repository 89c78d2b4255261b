"""ELECTRA (arXiv 2003.10555): BERT as a discriminator of replaced tokens, and the small generator it was trained with.

The embedding has a width of its own where `embedding_size` is not `hidden_size`; one linear map follows it then. No
pooler; a classifier's dense layer has a gelu, not a tanh.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from bothways.encoder.config import EncoderConfig
from bothways.encoder.generator import narrowed
from bothways.families.bert import bert, body, masked_lm_head, write_encoder
from bothways.families.convert import Reader, Rename, Rule, Tied, affine
from bothways.families.family import ACTIVATIONS, INERT, Family, Heads, Spec, read_labels, read_problem, read_types
from bothways.layers.heads import ClassifierHead, Transform
from bothways.layers.replaced_token import ReplacedTokenHead

_GELU = Transform(activation="gelu")


def electra(
    vocab_size: int = 30522,
    embedding_size: int = 128,
    hidden_size: int = 256,
    num_layers: int = 12,
    heads: int = 4,
    intermediate_size: int = 1024,
    max_length: int = 512,
    token_types: int = 2,
    activation: str = "gelu",
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    eps: float = 1e-12,
    initializer_range: float = 0.02,
) -> EncoderConfig:
    """ELECTRA's encoder; the defaults are electra-small-discriminator."""
    config = bert(
        vocab_size, hidden_size, num_layers, heads, intermediate_size, max_length, token_types, activation, dropout,
        attention_dropout, eps, initializer_range=initializer_range,
    )  # fmt: skip
    size = None if embedding_size == hidden_size else embedding_size
    return replace(config, embedding=replace(config.embedding, size=size))


_SMALL = electra()
_BASE = electra(embedding_size=768, hidden_size=768, heads=12, intermediate_size=3072)
_LARGE = electra(embedding_size=1024, hidden_size=1024, num_layers=24, heads=16, intermediate_size=4096)
SIZES = {
    **{"small": _SMALL, "base": _BASE, "large": _LARGE},
    # the small one was released with a generator of its own width
    **{"small-generator": narrowed(_SMALL, 1), "base-generator": narrowed(_BASE, 1 / 3)},
    **{"large-generator": narrowed(_LARGE, 1 / 4)},
}


def _read_encoder(reader: Reader) -> EncoderConfig:
    reader.only("position_embedding_type", "absolute")
    reader.only("tie_word_embeddings", True)
    reader.only("is_decoder", False)
    reader.only("add_cross_attention", False)
    return electra(
        vocab_size=reader.need("vocab_size"),
        embedding_size=reader.get("embedding_size", 128),
        hidden_size=reader.get("hidden_size", 256),
        num_layers=reader.get("num_hidden_layers", 12),
        heads=reader.get("num_attention_heads", 4),
        intermediate_size=reader.get("intermediate_size", 1024),
        max_length=reader.get("max_position_embeddings", 512),
        token_types=read_types(reader),
        activation=reader.choice("hidden_act", ACTIVATIONS, "gelu"),
        dropout=reader.dropout("hidden_dropout_prob", 0.1),
        attention_dropout=reader.dropout("attention_probs_dropout_prob", 0.1),
        eps=reader.get("layer_norm_eps", 1e-12),
        initializer_range=reader.get("initializer_range", 0.02),
    )


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    encoder, labels = _read_encoder(reader), read_labels(reader)
    dropout = reader.dropout("classifier_dropout", encoder.embedding.dropout)
    count = len(labels) or reader.get("num_labels", 2)
    discriminator = ReplacedTokenHead(transform=Transform(activation=encoder.layer(0).mlp.activation))
    return Spec(
        encoder=encoder,
        heads=Heads(
            # gelu whatever the layers use, here and in the classifier
            masked_lm=masked_lm_head(encoder, "gelu") if "masked_lm" in heads else None,
            classifier=ClassifierHead(labels=count, transform=_GELU, dropout=dropout, input_dropout=dropout)
            if "classifier" in heads
            else None,
            replaced_token=discriminator if "replaced_token" in heads else None,
        ),
        pad_id=reader.get("pad_token_id", 0),
        labels=labels,
        problem=read_problem(reader),
    )


def _write(spec: Spec) -> dict[str, Any]:
    size = spec.encoder.embedding.size or spec.encoder.hidden_size
    return {**write_encoder(spec, "electra"), "embedding_size": size}


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    rules, heads = body(prefix), spec.heads
    if spec.encoder.embedding.size:
        rules += affine("encoder.embedding.project", f"{prefix}embeddings_project")
    if heads.masked_lm:
        rules += [
            *affine("heads.masked_lm.transform.dense", "generator_predictions.dense"),
            *affine("heads.masked_lm.transform.norm", "generator_predictions.LayerNorm"),
            Rename("heads.masked_lm.bias", "generator_lm_head.bias"),
            Tied("generator_lm_head.weight", f"{prefix}embeddings.word_embeddings.weight"),
        ]
    if heads.classifier:
        rules += [
            *affine("heads.classifier.transform.dense", "classifier.dense"),
            *affine("heads.classifier.out", "classifier.out_proj"),
        ]
    if heads.replaced_token:
        rules += [
            *affine("heads.replaced_token.transform.dense", "discriminator_predictions.dense"),
            *affine("heads.replaced_token.out", "discriminator_predictions.dense_prediction"),
        ]
    return rules


def _architecture(heads: frozenset[str]) -> str:
    if "classifier" in heads:
        return "ElectraForSequenceClassification"
    if "replaced_token" in heads:
        return "ElectraForPreTraining"
    return "ElectraForMaskedLM" if "masked_lm" in heads else "ElectraModel"


FAMILY = Family(
    name="electra",
    inert=(*INERT, "summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout"),
    marks={
        "masked_lm": "generator_predictions.dense.weight",
        "replaced_token": "discriminator_predictions.dense.weight",
        "classifier": "classifier.out_proj.weight",
    },
    prefix="electra.",
    read=_read,
    write=_write,
    architecture=_architecture,
    rules=_rules,
)
