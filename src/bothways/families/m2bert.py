"""M2-BERT (arXiv 2310.12109): long convolutions and block-diagonal matrices in place of attention and MLP.

A layer is y = mixer(x), without residual or norm, then norm(y + MLP(y)). The mixer knows no padding mask: texts are filled up to
the full length with the padding token, which is read like any other. Configs of older checkpoints call themselves `bert`; the key
`monarch_mixer_sequence_mixing` tells them apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from bothways.encoder.config import EncoderConfig, Layer, TruncatedNormal
from bothways.errors import InputError
from bothways.families.convert import Drop, Reader, Rename, Rule, Tied, affine
from bothways.families.family import (
    ACTIVATIONS,
    INERT,
    Family,
    Heads,
    Inexpressible,
    Spec,
    class_name,
    published_activation,
    read_labels,
    read_problem,
    read_types,
    write_labels,
)
from bothways.layers.attention import Attention
from bothways.layers.embedding import Embedding
from bothways.layers.heads import ClassifierHead, MaskedLmHead, Transform
from bothways.layers.mlp import BlockDiagonal, Gated, Plain
from bothways.layers.monarch import Monarch
from bothways.layers.norm import LayerNorm
from bothways.layers.position import Learned

_POOLER = Transform(activation="tanh")
# fixed in the published class, whatever the config's layer_norm_eps
_MIXER_NORM, _HEAD_NORM = LayerNorm(eps=1e-5), LayerNorm(eps=1e-12)
# Our key: whether texts are filled up, which in published code is up to its caller, who does it.
_FILLED = "pad_to_full_length"


def m2bert(
    vocab_size: int = 30528,
    hidden_size: int = 768,
    num_layers: int = 12,
    intermediate_size: int = 3072,
    max_length: int = 128,
    grid: int | None = None,
    width: int = 128,
    features: int = 5,
    frequency: float = 10.0,
    bidirectional: bool = True,
    residual: bool = True,
    mixer_norm: bool = False,
    blocks: int = 4,
    positions: bool = True,
    token_types: int = 2,
    dropout: float = 0.1,
    eps: float = 1e-12,
    filler: int | None = 0,
    initializer_range: float = 0.02,
) -> EncoderConfig:
    """M2-BERT's encoder; the defaults are M2-BERT-80M, trained again without its legacy norm.

    Args:
        grid: positions that the filters are functions on; None: `max_length`.
        width: of the network that makes the filters; `features`, of its positions; `frequency`, of its sines.
        residual: a second long convolution, of the mixer's input as it is.
        mixer_norm: the mixer normalises its input, as the first release of 80M does ("hyena_training_additions").
        positions: whether positions have vectors.
        filler: the padding token, which fills every text up to `max_length`; None: texts are read at their own length,
            which published weights have not been trained for.
    """
    norm = LayerNorm(eps=eps)
    mixer = Monarch(
        length=grid or max_length,
        bidirectional=bidirectional,
        residual=residual,
        width=width,
        features=features,
        frequency=frequency,
        norm=_MIXER_NORM if mixer_norm else None,
    )
    mlp = BlockDiagonal(size=intermediate_size, blocks=blocks, dropout=dropout)
    position = Learned() if positions else None
    return EncoderConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        max_length=max_length,
        embedding=Embedding(token_types=token_types, position=position, norm=norm, dropout=dropout),
        layers=(Layer(mixer=mixer, mlp=mlp, norm=norm, order="post", mixer_residual=False),),
        filler=filler,
        initialisation=TruncatedNormal(std=initializer_range),
    )


SIZES = {
    "80m": m2bert(),
    "80m-legacy": m2bert(mixer_norm=True),
    "80m-2k": m2bert(max_length=2048),
    "80m-8k": m2bert(max_length=8192),
    "80m-32k": m2bert(max_length=32768),
    "110m": m2bert(hidden_size=960, intermediate_size=3840),
    "260m": m2bert(hidden_size=1536, intermediate_size=6144),
    "341m": m2bert(hidden_size=1792, intermediate_size=7168),
    "341m-2k": m2bert(hidden_size=1792, intermediate_size=7168, max_length=2048),
}


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    for key in ("monarch_mixer_sequence_mixing", "use_monarch_mlp"):
        if not reader.get(key, False):
            raise InputError(
                f"{reader.where}: {key} is not true; M2-BERT is read with its long convolutions and block-diagonal MLPs"
            )
    reader.only("use_glu_mlp", True)
    reader.only("hyena_w_mod", 1)
    reader.only("use_flash_mm", False)
    reader.only("sequence_token_planting", False)
    reader.only("attention_pooling", False)
    pad = reader.get("pad_token_id", 0)
    encoder = m2bert(
        vocab_size=reader.need("vocab_size"),
        hidden_size=reader.get("hidden_size", 768),
        num_layers=reader.get("num_hidden_layers", 12),
        intermediate_size=reader.get("intermediate_size", 3072),
        max_length=reader.get("max_position_embeddings", 512),
        grid=reader.get("long_conv_l_max", 128),
        width=reader.get("hyena_filter_order", 64),
        features=reader.get("hyena_emb_dim", 3),
        frequency=reader.get("hyena_w", 10.0),
        bidirectional=reader.get("bidirectional", True),
        residual=reader.get("residual_long_conv", False),
        mixer_norm=reader.get("hyena_training_additions", False),
        blocks=reader.get("monarch_mlp_nblocks", 4),
        positions=reader.get("use_positional_encodings", False),
        token_types=read_types(reader),
        dropout=reader.dropout("hidden_dropout_prob", 0.1),
        eps=reader.get("layer_norm_eps", 1e-12),
        filler=pad if reader.get(_FILLED, True) else None,
        initializer_range=reader.get("initializer_range", 0.02),
    )
    return Spec(encoder=encoder, heads=_read_heads(reader, heads, encoder), pad_id=pad,
                labels=read_labels(reader), problem=read_problem(reader))  # fmt: skip


def _read_heads(reader: Reader, heads: Collection[str], encoder: EncoderConfig) -> Heads:
    pooling = "mean" if reader.get("pool_all", False) else "cls"
    plain = reader.get("use_cls_token", True)  # a classifier of the first token as it is, with a pooler that it does not ask
    classifier = ClassifierHead(
        labels=len(read_labels(reader)) or reader.get("num_labels", 2),
        pooling="cls" if plain else pooling,
        transform=None if plain else _POOLER,
        dropout=0.0 if plain else reader.dropout("classifier_dropout", encoder.embedding.dropout),
    )
    alone = "pooler" in heads and (plain or "classifier" not in heads)
    if alone and pooling == "mean":
        raise InputError(f"{reader.where}: pool_all=True is supported for a classifier on the pooler, which is not here")
    head = Transform(activation=reader.choice("hidden_act", ACTIVATIONS, "gelu"), norm=_HEAD_NORM)
    return Heads(
        masked_lm=MaskedLmHead(transform=head) if "masked_lm" in heads else None,
        classifier=classifier if "classifier" in heads else None,
        pooler=_POOLER if alone else None,
    )


def _write(spec: Spec) -> dict[str, Any]:
    encoder, layer, classifier = spec.encoder, spec.encoder.layer(0), spec.heads.classifier
    mixer, mlp, norm = layer.mixer, layer.mlp, encoder.embedding.norm
    assert isinstance(mixer, Monarch)
    assert isinstance(mlp, BlockDiagonal)
    if not isinstance(norm, LayerNorm):
        raise Inexpressible("m2_bert", "encoder's embedding.norm")
    head = spec.heads.masked_lm and spec.heads.masked_lm.transform
    activation = published_activation("m2_bert", head.activation if head else "gelu", "masked_lm head's transform.activation")
    return {
        "model_type": "m2_bert",
        "vocab_size": encoder.vocab_size,
        "hidden_size": encoder.hidden_size,
        "num_hidden_layers": encoder.num_layers,
        "intermediate_size": mlp.size,
        "max_position_embeddings": encoder.max_length,
        "type_vocab_size": encoder.embedding.token_types,
        "use_positional_encodings": encoder.embedding.position is not None,
        "monarch_mixer_sequence_mixing": True,
        "long_conv_l_max": mixer.length,
        "hyena_filter_order": mixer.width,
        "hyena_emb_dim": mixer.features,
        "hyena_w": mixer.frequency,
        "bidirectional": mixer.bidirectional,
        "residual_long_conv": mixer.residual,
        "hyena_training_additions": mixer.norm is not None,
        "use_glu_mlp": True,
        "use_monarch_mlp": True,
        "monarch_mlp_nblocks": mlp.blocks,
        "hidden_act": activation,
        "hidden_dropout_prob": encoder.embedding.dropout,
        "use_cls_token": classifier is None or classifier.transform is None,
        "pool_all": classifier is not None and classifier.pooling == "mean",
        **({"classifier_dropout": classifier.dropout} if classifier and classifier.transform else {}),
        "layer_norm_eps": norm.eps,
        "initializer_range": encoder.initialisation.spread,
        "pad_token_id": spec.pad_id,
        _FILLED: encoder.filler is not None,
        **write_labels(spec),
    }


def _convolution(spec: Spec, ours: str, theirs: str) -> list[Rule]:
    """A long convolution. One tensor holds the frequencies of all its sines; pickled, it is there under the name of each."""
    mixer = spec.encoder.layer(0).mixer
    assert isinstance(mixer, Monarch)
    networks = {"past": "implicit_filter"} | ({"future": "implicit_filter_rev"} if mixer.bidirectional else {})
    source = f"{theirs}.implicit_filter.1.freq"
    rules: list[Rule] = [
        Rename(f"{ours}.places", f"{theirs}.pos_emb.z"),
        Rename(f"{ours}.times", f"{theirs}.pos_emb.t"),
        Rename(f"{ours}.decays", f"{theirs}.modulation.deltas"),
        Rename(f"{ours}.skip", f"{theirs}.bias"),
        Rename(f"{ours}.frequencies", source),
    ]
    for one, other in networks.items():
        for i in range(4):
            rules += affine(f"{ours}.{one}.{i}", f"{theirs}.{other}.{2 * i}", bias=i < 3)
        rules += [Tied(copy, source) for i in (1, 3, 5) if (copy := f"{theirs}.{other}.{i}.freq") != source]
    return rules


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    heads, mixer, position = spec.heads, spec.encoder.layer(0).mixer, spec.encoder.embedding.position
    assert isinstance(mixer, Monarch)
    ours, theirs = "encoder.layers.{i}.", prefix + "encoder.layer.{i}."
    rules: list[Rule] = [
        Rename("encoder.embedding.tokens.weight", f"{prefix}embeddings.word_embeddings.weight"),
        Rename("encoder.embedding.types.weight", f"{prefix}embeddings.token_type_embeddings.weight"),
        *affine("encoder.embedding.norm", f"{prefix}embeddings.LayerNorm"),
        Drop(f"{prefix}embeddings.position_ids"),
        *affine(ours + "mixer.project", theirs + "attention.in_linear"),
        *affine(ours + "mixer.short", theirs + "attention.short_filter"),
        *affine(ours + "mixer.out", theirs + "attention.out_linear"),
        *_convolution(spec, ours + "mixer.long", theirs + "attention.filter_fn"),
        Rename(ours + "mlp.up.weight", theirs + "mlp.gated_layers.weight"),
        *affine(ours + "mlp.down", theirs + "mlp.wo"),
        *affine(ours + "mlp_norm", theirs + "mlp.layernorm"),
    ]
    if position is not None:
        rules.append(Rename("encoder.embedding.positions.weight", f"{prefix}embeddings.position_embeddings.weight"))
    if mixer.residual:
        rules += _convolution(spec, ours + "mixer.residual", theirs + "attention.filter_fn2")
    if mixer.norm is not None:
        rules += affine(ours + "mixer.norm", theirs + "attention.layernorm")
    if heads.masked_lm:
        rules += [
            *affine("heads.masked_lm.transform.dense", "cls.predictions.transform.dense"),
            *affine("heads.masked_lm.transform.norm", "cls.predictions.transform.LayerNorm"),
            Rename("heads.masked_lm.bias", "cls.predictions.decoder.bias"),
            Tied("cls.predictions.decoder.weight", f"{prefix}embeddings.word_embeddings.weight"),
        ]
    if heads.classifier:
        rules += affine("heads.classifier.out", "classifier")
        if heads.classifier.transform:
            rules += affine("heads.classifier.transform.dense", f"{prefix}pooler.dense")
    if heads.pooler:
        rules += affine("heads.pooler.dense", f"{prefix}pooler.dense")
    return rules


def _claims(published: Mapping[str, Any]) -> bool:
    return published.get("model_type") in (None, "bert") and bool(published.get("monarch_mixer_sequence_mixing"))


FAMILY = Family(
    name="m2_bert",
    inert=(*INERT, "num_attention_heads", "attention_probs_dropout_prob", "alibi_starting_size", "position_embedding_type",
           "long_conv_kernel_learning_rate", "hyena_lr_pos_emb", "hyena_wd", "hyena_filter_dropout", "use_flash_fft",
           "expand_positional_embeddings", "performing_BEIR_evaluation", "gather_sentence_embeddings",
           "use_normalized_embeddings", "use_learnable_monarch", "precision", "pretrained_checkpoint"),
    marks={
        "masked_lm": "cls.predictions.transform.dense.weight",
        "classifier": "classifier.weight",
        "pooler": "pooler.dense.weight",
    },
    prefix="bert.",
    read=_read,
    write=_write,
    architecture=partial(class_name, "Bert"),
    rules=_rules,
    claims=_claims,
    without=(Attention, Plain, Gated),
    in_transformers=False,
)  # fmt: skip
