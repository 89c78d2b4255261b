"""DistilBERT (arXiv 1910.01108): six layers of BERT, without token types and pooler, under names of its own.

As in `transformers`, dropout acts on what the MLP adds, and never on what attention adds. Positions are a table in
the weights even where the config says `sinusoidal_pos_embds`: that only says what the table began as.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from bothways.encoder.config import EncoderConfig
from bothways.encoder.picking import picked, spread_layers
from bothways.families.bert import bert, masked_lm_head
from bothways.families.convert import Drop, Fuse, Reader, Rename, Rule, Tied, affine
from bothways.families.family import (
    ACTIVATIONS,
    INERT,
    Family,
    Heads,
    Inexpressible,
    Spec,
    attention_of,
    class_name,
    published_activation,
    read_labels,
    read_problem,
    write_labels,
)
from bothways.layers.heads import ClassifierHead, Transform
from bothways.layers.position import Learned


def distilbert(
    vocab_size: int = 30522,
    hidden_size: int = 768,
    num_layers: int = 6,
    heads: int = 12,
    intermediate_size: int = 3072,
    max_length: int = 512,
    activation: str = "gelu",
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    initializer_range: float = 0.02,
) -> EncoderConfig:
    """DistilBERT's encoder; the defaults are distilbert-base-uncased."""
    config = bert(
        vocab_size, hidden_size, num_layers, heads, intermediate_size, max_length, token_types=0, activation=activation,
        dropout=dropout, attention_dropout=attention_dropout, initializer_range=initializer_range,
    )  # fmt: skip
    layer = config.layers[0]
    return replace(config, layers=(replace(layer, dropout=0.0, mlp=replace(layer.mlp, out_dropout=dropout)),))


# the layers of a teacher of twelve that the published students began as
TEACHER_LAYERS = spread_layers(12, 6)


def student(teacher: Mapping[str, Tensor], layers: tuple[int, ...] = TEACHER_LAYERS) -> dict[str, Tensor]:
    """The weights a student begins with, copied from the state of a BERT with a masked-language head.

    The student's layer j is the teacher's `layers[j]`; token types, poolers and other heads are left behind.
    """
    kept = {
        name: tensor
        for name, tensor in teacher.items()
        if name.startswith(("encoder.", "heads.masked_lm.")) and name != "encoder.embedding.types.weight"
    }
    return picked(kept, layers)


SIZES = {"base": distilbert(), "base-cased": distilbert(28996), "base-multilingual": distilbert(119547)}


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    reader.only("tie_word_embeddings", True)
    encoder = distilbert(
        vocab_size=reader.need("vocab_size"),
        # `transformers` takes the usual names for these too
        hidden_size=reader.get("dim", reader.get("hidden_size", 768)),
        num_layers=reader.get("n_layers", reader.get("num_hidden_layers", 6)),
        heads=reader.get("n_heads", reader.get("num_attention_heads", 12)),
        intermediate_size=reader.get("hidden_dim", 3072),
        max_length=reader.get("max_position_embeddings", 512),
        activation=reader.choice("activation", ACTIVATIONS, "gelu"),
        dropout=reader.dropout("dropout", 0.1),
        attention_dropout=reader.dropout("attention_dropout", 0.1),
        initializer_range=reader.get("initializer_range", 0.02),
    )
    labels = read_labels(reader)
    classifier = ClassifierHead(
        labels=len(labels) or reader.get("num_labels", 2),
        # relu, whatever the layers use
        transform=Transform(activation="relu"),
        dropout=reader.dropout("seq_classif_dropout", 0.2),
    )
    return Spec(
        encoder=encoder,
        heads=Heads(
            masked_lm=masked_lm_head(encoder) if "masked_lm" in heads else None,
            classifier=classifier if "classifier" in heads else None,
        ),
        pad_id=reader.get("pad_token_id", 0),
        labels=labels,
        problem=read_problem(reader),
    )


def _write(spec: Spec) -> dict[str, Any]:
    encoder, layer, classifier = spec.encoder, spec.encoder.layer(0), spec.heads.classifier
    if not isinstance(encoder.embedding.position, Learned):
        raise Inexpressible("distilbert", "encoder's embedding.position")
    return {
        "model_type": "distilbert",
        "vocab_size": encoder.vocab_size,
        "dim": encoder.hidden_size,
        "n_layers": encoder.num_layers,
        "n_heads": attention_of(layer).heads,
        "hidden_dim": layer.mlp.size,
        "max_position_embeddings": encoder.max_length,
        "activation": published_activation("distilbert", layer.mlp.activation, "encoder's layers.0.mlp.activation"),
        "dropout": encoder.embedding.dropout,
        "attention_dropout": attention_of(layer).dropout,
        **({"seq_classif_dropout": classifier.dropout} if classifier else {}),
        "initializer_range": encoder.initialisation.spread,
        "pad_token_id": spec.pad_id,
        "tie_word_embeddings": True,
        **write_labels(spec),
    }


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    ours, theirs, heads = "encoder.layers.{i}.", prefix + "transformer.layer.{i}.", spec.heads
    rules: list[Rule] = [
        Rename("encoder.embedding.tokens.weight", f"{prefix}embeddings.word_embeddings.weight"),
        Rename("encoder.embedding.positions.weight", f"{prefix}embeddings.position_embeddings.weight"),
        *affine("encoder.embedding.norm", f"{prefix}embeddings.LayerNorm"),
        Drop(f"{prefix}embeddings.position_ids"),
        *affine(ours + "mixer.out", theirs + "attention.out_lin"),
        *affine(ours + "mixer_norm", theirs + "sa_layer_norm"),
        *affine(ours + "mlp.up", theirs + "ffn.lin1"),
        *affine(ours + "mlp.down", theirs + "ffn.lin2"),
        *affine(ours + "mlp_norm", theirs + "output_layer_norm"),
    ]
    for part in ("weight", "bias"):
        separate = tuple(f"{theirs}attention.{name}_lin.{part}" for name in "qkv")
        rules.append(Fuse(f"{ours}mixer.qkv.{part}", separate))
    if heads.masked_lm:
        rules += [
            *affine("heads.masked_lm.transform.dense", "vocab_transform"),
            *affine("heads.masked_lm.transform.norm", "vocab_layer_norm"),
            Rename("heads.masked_lm.bias", "vocab_projector.bias"),
            Tied("vocab_projector.weight", f"{prefix}embeddings.word_embeddings.weight"),
        ]
    if heads.classifier:
        rules += affine("heads.classifier.transform.dense", "pre_classifier") + affine("heads.classifier.out", "classifier")
    return rules


FAMILY = Family(
    name="distilbert",
    inert=(*INERT, "sinusoidal_pos_embds", "qa_dropout", "seq_classif_dropout", "tie_weights_"),
    marks={"masked_lm": "vocab_transform.weight", "classifier": "pre_classifier.weight"},
    prefix="distilbert.",
    read=_read,
    write=_write,
    architecture=partial(class_name, "DistilBert"),
    rules=_rules,
)  # fmt: skip
