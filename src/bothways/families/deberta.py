"""DeBERTa (arXiv 2006.03654): post-norm, disentangled positions inside the score.

Its first version: one projection without bias, ordered head by head, and biases of queries and values alone. What the
second and third versions share with it is here too.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bothways.encoder.config import EncoderConfig, Layer, TruncatedNormal
from bothways.errors import InputError
from bothways.families.convert import Drop, Reader, Rename, Rule, affine
from bothways.families.deberta_heads import MARKS, of_heads, read_spec, write_heads
from bothways.families.family import (
    ACTIVATIONS,
    INERT,
    Family,
    Inexpressible,
    Spec,
    attention_of,
    class_name,
    published_activation,
)
from bothways.layers.attention import Attention
from bothways.layers.convolution import Convolution
from bothways.layers.embedding import Embedding
from bothways.layers.mlp import Plain
from bothways.layers.norm import LayerNorm
from bothways.layers.position import Disentangled, Learned

# keys of all versions that say nothing about the numbers
INERT_KEYS = (*INERT, "padding_idx", "pooler_hidden_size")

POSITION = Disentangled(dropout=0.1)


def deberta(
    vocab_size: int = 50265,
    hidden_size: int = 768,
    num_layers: int = 12,
    heads: int = 12,
    intermediate_size: int = 3072,
    max_length: int = 512,
    token_types: int = 0,
    activation: str = "gelu",
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    eps: float = 1e-7,
    initializer_range: float = 0.02,
    position: Disentangled | None = POSITION,
    absolute: bool = False,
    key_bias: bool = False,
    convolution: Convolution | None = None,
) -> EncoderConfig:
    """DeBERTa's encoder; the defaults are deberta-base.

    Args:
        position: relative positions, inside the score.
        absolute: whether absolute ones are added to the embedding.
    """
    norm = LayerNorm(eps=eps)
    layer = Layer(
        mixer=Attention(heads=heads, position=position, key_bias=key_bias, dropout=attention_dropout),
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
        embedding=Embedding(token_types=token_types, position=Learned() if absolute else None, norm=norm, dropout=dropout),
        layers=(layer,),
        convolution=convolution,
        initialisation=TruncatedNormal(std=initializer_range),
    )


SIZES = {
    "base": deberta(),
    "large": deberta(hidden_size=1024, num_layers=24, heads=16, intermediate_size=4096),
    "xlarge": deberta(hidden_size=1024, num_layers=48, heads=16, intermediate_size=4096),
}


def rows(heads: int, count: int) -> Tensor:
    """For each row of our qkv ([3, heads, size]), its row in theirs ([heads, 3, size])."""
    return torch.arange(count).view(heads, 3, -1).transpose(0, 1).flatten()


def read_encoder(
    reader: Reader, buckets: int | None, shared: bool, norm: LayerNorm | None, key_bias: bool, convolution: Convolution | None
) -> EncoderConfig:
    """The encoder of a `config.json` of any version; the arguments are what only some versions have.

    Raises:
        InputError: scores are scaled for terms that there are none of, or `pos_att_type` names an unknown one.
    """
    size, max_length = reader.need("hidden_size"), reader.get("max_position_embeddings", 512)
    reader.only("embedding_size", size)
    # the released head, which is not the legacy one, takes the table itself
    reader.only("tie_word_embeddings", True, *(() if reader.get("legacy", True) else (False,)))
    dropout, furthest = reader.dropout("hidden_dropout_prob", 0.1), reader.get("max_relative_positions", -1)
    terms, relative = _terms(reader), reader.get("relative_attention", False)
    if not relative and (terms or norm):
        key = "pos_att_type" if terms else "norm_rel_ebd"
        raise InputError(f"{reader.where}: {key}={reader.get(key)!r} is not supported without relative_attention")
    position = Disentangled(
        content_to_position="c2p" in terms,
        position_to_content="p2c" in terms,
        max_distance=furthest if furthest > 0 else max_length,
        buckets=buckets,
        shared=shared,
        norm=norm,
        dropout=dropout,
    )
    return deberta(
        vocab_size=reader.need("vocab_size"),
        hidden_size=size,
        num_layers=reader.need("num_hidden_layers"),
        heads=reader.need("num_attention_heads"),
        intermediate_size=reader.need("intermediate_size"),
        max_length=max_length,
        token_types=reader.get("type_vocab_size", 0),
        activation=reader.choice("hidden_act", ACTIVATIONS, "gelu"),
        dropout=dropout,
        attention_dropout=reader.dropout("attention_probs_dropout_prob", 0.1),
        eps=reader.get("layer_norm_eps", 1e-7),
        initializer_range=reader.get("initializer_range", 0.02),
        position=position if relative else None,
        absolute=reader.get("position_biased_input", True),
        key_bias=key_bias,
        convolution=convolution,
    )


def _terms(reader: Reader) -> list[str]:
    """What scores have beside contents: a list, or a text with bars."""
    value = reader.get("pos_att_type") or []
    terms = [term.strip() for term in value.lower().split("|")] if isinstance(value, str) else value
    if not isinstance(terms, list) or sorted(terms) not in ([], ["c2p"], ["p2c"], ["c2p", "p2c"]):
        raise InputError(f"{reader.where}: pos_att_type={value!r} is not supported; supported: c2p, p2c, c2p|p2c")
    return terms


def write_spec(spec: Spec, model_type: str) -> dict[str, Any]:
    """The `config.json` of any version, without what only some versions have.

    Raises:
        Inexpressible: another norm of the embedding, an activation without a published name.
    """
    encoder, layer = spec.encoder, spec.encoder.layer(0)
    if not isinstance(encoder.embedding.norm, LayerNorm):
        raise Inexpressible(model_type, "encoder's embedding.norm")
    given = attention_of(layer).position
    position = given if isinstance(given, Disentangled) else None
    terms = {} if position is None else {"c2p": position.content_to_position, "p2c": position.position_to_content}
    return {
        "model_type": model_type,
        "vocab_size": encoder.vocab_size,
        "hidden_size": encoder.hidden_size,
        "num_hidden_layers": encoder.num_layers,
        "num_attention_heads": attention_of(layer).heads,
        "intermediate_size": layer.mlp.size,
        "max_position_embeddings": encoder.max_length,
        "type_vocab_size": encoder.embedding.token_types,
        "hidden_act": published_activation(model_type, layer.mlp.activation, "encoder's layers.0.mlp.activation"),
        "hidden_dropout_prob": encoder.embedding.dropout,
        "attention_probs_dropout_prob": attention_of(layer).dropout,
        "layer_norm_eps": encoder.embedding.norm.eps,
        "initializer_range": encoder.initialisation.spread,
        "pad_token_id": spec.pad_id,
        "relative_attention": position is not None,
        "max_relative_positions": position.max_distance if position else -1,
        "pos_att_type": [term for term, there in terms.items() if there],
        "position_biased_input": encoder.embedding.position is not None,
        # the released head takes the table itself, and version 4 would tie that head's dense layer to it
        "tie_word_embeddings": spec.legacy,
        **write_heads(spec, model_type),
    }


def body(spec: Spec, prefix: str, own: tuple[str, str]) -> list[Rule]:
    """The weights of an encoder of any version under a prefix, but the projections of contents.

    `own` are the names of the projections of positions, to keys and to queries.
    """
    encoder, mixer = spec.encoder, attention_of(spec.encoder.layer(0))
    ours, theirs = "encoder.layers.{i}.", prefix + "encoder.layer.{i}."
    rules: list[Rule] = [
        Rename("encoder.embedding.tokens.weight", f"{prefix}embeddings.word_embeddings.weight"),
        *affine("encoder.embedding.norm", f"{prefix}embeddings.LayerNorm"),
        Drop(f"{prefix}embeddings.position_ids"),
        *affine(ours + "mixer.out", theirs + "attention.output.dense"),
        *affine(ours + "mixer_norm", theirs + "attention.output.LayerNorm"),
        *affine(ours + "mlp.up", theirs + "intermediate.dense"),
        *affine(ours + "mlp.down", theirs + "output.dense"),
        *affine(ours + "mlp_norm", theirs + "output.LayerNorm"),
    ]
    absolute = "heads.mask_decoder.positions.weight" if spec.heads.mask_decoder else "encoder.embedding.positions.weight"
    if spec.heads.mask_decoder or encoder.embedding.position is not None:
        rules.append(Rename(absolute, f"{prefix}embeddings.position_embeddings.weight"))
    if encoder.embedding.token_types:
        rules.append(Rename("encoder.embedding.types.weight", f"{prefix}embeddings.token_type_embeddings.weight"))
    if isinstance(mixer.position, Disentangled):
        rules.append(Rename("encoder.relative.table.weight", f"{prefix}encoder.rel_embeddings.weight"))
        if mixer.position.content_to_position and not mixer.position.shared:
            rules += affine(ours + "mixer.relative.key", f"{theirs}attention.self.{own[0]}", mixer.key_bias)
        if mixer.position.position_to_content and not mixer.position.shared:
            rules += affine(ours + "mixer.relative.query", f"{theirs}attention.self.{own[1]}")
    return rules


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    reader.only("talking_head", False)
    return read_spec(reader, heads, read_encoder(reader, None, False, None, key_bias=False, convolution=None))


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    ours, theirs = "encoder.layers.{i}.mixer.", prefix + "encoder.layer.{i}.attention.self."
    return [
        *body(spec, prefix, ("pos_proj", "pos_q_proj")),
        Rename(ours + "qkv.weight", theirs + "in_proj.weight", partial(rows, attention_of(spec.encoder.layer(0)).heads)),
        Rename(ours + "query_bias", theirs + "q_bias"),
        Rename(ours + "value_bias", theirs + "v_bias"),
        *of_heads(spec, prefix),
    ]


FAMILY = Family(
    name="deberta",
    inert=INERT_KEYS,
    marks=MARKS,
    prefix="deberta.",
    read=_read,
    write=lambda spec: write_spec(spec, "deberta"),
    architecture=partial(class_name, "Deberta"),
    rules=_rules,
)
