"""ALBERT (arXiv 1909.11942): BERT whose layers are one module, on an embedding of its own, smaller width.

Tables and norm of the embedding have `embedding_size` features, which one linear map brings to the layers.
As in `transformers`, dropout acts on what attention adds, and never on what the MLP adds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

from bothways.encoder.config import EncoderConfig, Groups, Layer, TruncatedNormal
from bothways.errors import InputError
from bothways.families.bert import masked_lm_head, tables, write_encoder
from bothways.families.convert import Fuse, Reader, Rename, Rule, Tied, affine
from bothways.families.family import ACTIVATIONS, INERT, Family, Heads, Inexpressible, Spec, read_labels, read_problem, read_types
from bothways.layers.attention import Attention
from bothways.layers.embedding import Embedding
from bothways.layers.heads import ClassifierHead, Transform
from bothways.layers.mlp import Plain
from bothways.layers.norm import LayerNorm
from bothways.layers.position import Learned

_POOLER = Transform(activation="tanh")


def albert(
    vocab_size: int = 30000,
    embedding_size: int = 128,
    hidden_size: int = 768,
    num_layers: int = 12,
    heads: int = 12,
    intermediate_size: int = 3072,
    groups: int = 1,
    inner: int = 1,
    max_length: int = 512,
    token_types: int = 2,
    activation: str = "gelu_tanh",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    eps: float = 1e-12,
    initializer_range: float = 0.02,
) -> EncoderConfig:
    """ALBERT's encoder; the defaults are albert-base-v2.

    Args:
        num_layers: the depth; a published config divides it by `inner`.
        groups: parts of the depth that do not share.
        inner: layers of a part, repeated one after another.
    """
    norm = LayerNorm(eps=eps)
    layer = Layer(
        mixer=Attention(heads=heads, dropout=attention_dropout, out_dropout=dropout),
        mlp=Plain(size=intermediate_size, activation=activation),  # type: ignore[arg-type]
        norm=norm,
        order="post",
    )
    return EncoderConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        max_length=max_length,
        embedding=Embedding(token_types=token_types, position=Learned(), norm=norm, dropout=dropout, size=embedding_size),
        layers=(layer,),
        shared=Groups(groups=groups, inner=inner),
        initialisation=TruncatedNormal(std=initializer_range),
    )


_LARGE = partial(albert, hidden_size=1024, num_layers=24, heads=16, intermediate_size=4096)
_XLARGE = partial(albert, hidden_size=2048, num_layers=24, heads=16, intermediate_size=8192)
_XXLARGE = partial(albert, hidden_size=4096, num_layers=12, heads=64, intermediate_size=16384)
# the first release: the exact gelu, and dropout in all but the largest
_V1: dict[str, Any] = {"activation": "gelu", "dropout": 0.1, "attention_dropout": 0.1}
SIZES = {
    **{"base-v1": albert(**_V1), "large-v1": _LARGE(**_V1), "xlarge-v1": _XLARGE(**_V1)},
    **{"xxlarge-v1": _XXLARGE(activation="gelu")},
    **{"base-v2": albert(), "large-v2": _LARGE(), "xlarge-v2": _XLARGE(), "xxlarge-v2": _XXLARGE()},
}


def _read_encoder(reader: Reader) -> EncoderConfig:
    for key, value in (("position_embedding_type", "absolute"), ("tie_word_embeddings", True), ("is_decoder", False)):
        reader.only(key, value)
    depth, groups, inner = (
        reader.get("num_hidden_layers", 12),
        reader.get("num_hidden_groups", 1),
        reader.get("inner_group_num", 1),
    )
    encoder = albert(
        vocab_size=reader.need("vocab_size"),
        embedding_size=reader.get("embedding_size", 128),
        hidden_size=reader.get("hidden_size", 4096),
        num_layers=depth * inner,
        heads=reader.get("num_attention_heads", 64),
        intermediate_size=reader.get("intermediate_size", 16384),
        groups=groups,
        inner=inner,
        max_length=reader.get("max_position_embeddings", 512),
        token_types=read_types(reader),
        activation=reader.choice("hidden_act", ACTIVATIONS, "gelu_new"),
        dropout=reader.dropout("hidden_dropout_prob", 0.0),
        attention_dropout=reader.dropout("attention_probs_dropout_prob", 0.0),
        eps=reader.get("layer_norm_eps", 1e-12),
        initializer_range=reader.get("initializer_range", 0.02),
    )
    # `transformers` divides in floating point, which for some odd numbers puts a layer into the group before
    if [int(i / (depth / groups)) for i in range(depth)] != [number // inner for number in encoder.depths[::inner]]:
        raise InputError(f"{reader.where}: num_hidden_groups={groups} of num_hidden_layers={depth} is not supported")
    return encoder


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    encoder, labels = _read_encoder(reader), read_labels(reader)
    behind_pooler = ClassifierHead(
        labels=len(labels) or reader.get("num_labels", 2),
        transform=_POOLER,
        dropout=reader.dropout("classifier_dropout_prob", 0.1),
    )
    return Spec(
        encoder=encoder,
        heads=Heads(
            masked_lm=masked_lm_head(encoder) if "masked_lm" in heads else None,
            classifier=behind_pooler if "classifier" in heads else None,
            sentence_order=behind_pooler if "sentence_order" in heads else None,
            pooler=_POOLER if "pooler" in heads and not {"classifier", "sentence_order"} & set(heads) else None,
        ),
        pad_id=reader.get("pad_token_id", 0),
        labels=labels,
        problem=read_problem(reader),
    )


def _write(spec: Spec) -> dict[str, Any]:
    encoder, behind_pooler = spec.encoder, spec.heads.classifier or spec.heads.sentence_order
    if encoder.shared is None:
        raise Inexpressible("albert", "encoder's shared")
    if encoder.embedding.size is None:
        raise Inexpressible("albert", "encoder's embedding.size")
    # the order of two sentences is told by as many outputs as there are labels
    config = write_encoder(replace(spec, heads=Heads(classifier=behind_pooler)), "albert")
    dropout = config.pop("classifier_dropout", None)
    return {
        **config,
        "embedding_size": encoder.embedding.size,
        "num_hidden_layers": encoder.num_layers // encoder.shared.inner,
        "num_hidden_groups": encoder.shared.groups,
        "inner_group_num": encoder.shared.inner,
        **({} if dropout is None else {"classifier_dropout_prob": dropout}),
    }


def _layer(ours: str, theirs: str) -> list[Rule]:
    rules: list[Rule] = [
        *affine(f"{ours}.mixer.out", f"{theirs}.attention.dense"),
        *affine(f"{ours}.mixer_norm", f"{theirs}.attention.LayerNorm"),
        *affine(f"{ours}.mlp.up", f"{theirs}.ffn"),
        *affine(f"{ours}.mlp.down", f"{theirs}.ffn_output"),
        *affine(f"{ours}.mlp_norm", f"{theirs}.full_layer_layer_norm"),
    ]
    for part in ("weight", "bias"):
        separate = tuple(f"{theirs}.attention.{name}.{part}" for name in ("query", "key", "value"))
        rules.append(Fuse(f"{ours}.mixer.qkv.{part}", separate))
    return rules


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    heads, shared = spec.heads, spec.encoder.shared or Groups()
    rules = tables(prefix) + affine("encoder.embedding.project", f"{prefix}encoder.embedding_hidden_mapping_in")
    for module in range(max(spec.encoder.depths) + 1):
        group, inside = divmod(module, shared.inner)
        theirs = f"{prefix}encoder.albert_layer_groups.{group}.albert_layers.{inside}"
        rules += _layer(f"encoder.layers.{module}", theirs)
    if heads.masked_lm:
        rules += [
            *affine("heads.masked_lm.transform.dense", "predictions.dense"),
            *affine("heads.masked_lm.transform.norm", "predictions.LayerNorm"),
            Rename("heads.masked_lm.bias", "predictions.bias"),
            Tied("predictions.decoder.weight", f"{prefix}embeddings.word_embeddings.weight"),
            Tied("predictions.decoder.bias", "predictions.bias"),
        ]
    for name, theirs in (("classifier", "classifier"), ("sentence_order", "sop_classifier.classifier")):
        if name in heads.present():
            rules += affine(f"heads.{name}.transform.dense", f"{prefix}pooler") + affine(f"heads.{name}.out", theirs)
    if heads.pooler:
        rules += affine("heads.pooler.dense", f"{prefix}pooler")
    return rules


def _architecture(heads: frozenset[str]) -> str:
    if "classifier" in heads:
        return "AlbertForSequenceClassification"
    if "sentence_order" in heads:
        return "AlbertForPreTraining"
    return "AlbertForMaskedLM" if "masked_lm" in heads else "AlbertModel"


FAMILY = Family(
    name="albert",
    inert=(*INERT, "classifier_dropout_prob", "down_scale_factor", "gap_size", "net_structure_type", "num_memory_blocks",
           "layers_to_keep"),
    marks={
        "masked_lm": "predictions.dense.weight",
        "sentence_order": "sop_classifier.classifier.weight",
        "classifier": "classifier.weight",
        "pooler": "pooler.weight",
    },
    prefix="albert.",
    read=_read,
    write=_write,
    architecture=_architecture,
    rules=_rules,
)  # fmt: skip
