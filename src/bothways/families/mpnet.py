"""MPNet (arXiv 2004.09297): BERT's body with RoBERTa's heads, and bucketed distances beside learned positions.

One table of 32 distances serves all layers. Positions count from row 2 of their table whatever the
padding id is, and its heads drop out what the layers do: the class of `transformers` has both fixed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

from bothways.encoder.config import EncoderConfig
from bothways.families.bert import bert, read_encoder, write_encoder
from bothways.families.convert import Drop, Fuse, Reader, Rename, Rule, affine
from bothways.families.family import INERT, Family, Spec, class_name
from bothways.families.roberta import of_heads, read_spec
from bothways.layers.position import Bucketed

_OFFSET = 2
# keys of BERT's that MPNet's config does not have
_FOREIGN = ("type_vocab_size", "position_embedding_type", "classifier_dropout")


def bucketed(encoder: EncoderConfig, position: Bucketed) -> EncoderConfig:
    """The encoder with bucketed distances in the scores of all its layers."""
    layers = tuple(replace(layer, mixer=replace(layer.mixer, position=position)) for layer in encoder.layers)
    return replace(encoder, layers=layers)


def mpnet(
    vocab_size: int = 30527,
    hidden_size: int = 768,
    num_layers: int = 12,
    heads: int = 12,
    intermediate_size: int = 3072,
    max_length: int = 512,
    activation: str = "gelu",
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    eps: float = 1e-5,
    initializer_range: float = 0.02,
) -> EncoderConfig:
    """MPNet's encoder; the defaults are mpnet-base."""
    plain = bert(
        vocab_size, hidden_size, num_layers, heads, intermediate_size, max_length, token_types=0, activation=activation,
        dropout=dropout, attention_dropout=attention_dropout, eps=eps, position_offset=_OFFSET,
        initializer_range=initializer_range,
    )  # fmt: skip
    return bucketed(plain, Bucketed(buckets=32, max_distance=128))


SIZES = {"base": mpnet()}


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    # the class reads distances as 32 buckets up to 128, however many rows this key gives the table
    reader.only("relative_attention_num_buckets", 32)
    encoder = bucketed(read_encoder(reader, _OFFSET, typed=False), Bucketed(buckets=32, max_distance=128))
    return read_spec(reader, heads, encoder, encoder.embedding.dropout, reader.get("pad_token_id", 1))


def _write(spec: Spec) -> dict[str, Any]:
    config = write_encoder(spec, "mpnet", _OFFSET)
    # bos and eos as in every published MPNet; they do not enter the numbers
    ours = {"bos_token_id": 0, "eos_token_id": 2, "relative_attention_num_buckets": 32}
    return ours | {key: value for key, value in config.items() if key not in _FOREIGN}


def _body(prefix: str) -> list[Rule]:
    ours, theirs = "encoder.layers.{i}.", prefix + "encoder.layer.{i}."
    rules: list[Rule] = [
        Rename("encoder.embedding.tokens.weight", f"{prefix}embeddings.word_embeddings.weight"),
        Rename("encoder.embedding.positions.weight", f"{prefix}embeddings.position_embeddings.weight"),
        *affine("encoder.embedding.norm", f"{prefix}embeddings.LayerNorm"),
        Drop(f"{prefix}embeddings.position_ids"),
        Rename("encoder.relative.weight", f"{prefix}encoder.relative_attention_bias.weight"),
        *affine(ours + "mixer.out", theirs + "attention.attn.o"),
        *affine(ours + "mixer_norm", theirs + "attention.LayerNorm"),
        *affine(ours + "mlp.up", theirs + "intermediate.dense"),
        *affine(ours + "mlp.down", theirs + "output.dense"),
        *affine(ours + "mlp_norm", theirs + "output.LayerNorm"),
    ]
    for part in ("weight", "bias"):
        rules.append(Fuse(f"{ours}mixer.qkv.{part}", tuple(f"{theirs}attention.attn.{name}.{part}" for name in "qkv")))
    return rules


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    return _body(prefix) + of_heads(spec, prefix)


FAMILY = Family(
    name="mpnet",
    inert=(*INERT, "type_vocab_size"),
    marks={"masked_lm": "lm_head.dense.weight", "classifier": "classifier.out_proj.weight", "pooler": "pooler.dense.weight"},
    prefix="mpnet.",
    read=_read,
    write=_write,
    architecture=partial(class_name, "MPNet"),
    rules=_rules,
)  # fmt: skip
