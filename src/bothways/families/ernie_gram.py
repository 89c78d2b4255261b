"""ERNIE-Gram (arXiv 2010.12148) as it is fine-tuned: BERT without token types, with bucketed distances.

The facts are those of the released code (PaddlePaddle/ERNIE, branch `repro`): learned positions, and
32 buckets of distances up to 128 in one table for all layers. In it the first token stands apart: what
it looks at, and what looks at it, are two entries of their own, 16 and 32. The low half of the
released table holds what lies ahead, ours what lies behind, hence the order of rows below.

No torch checkpoint was released, so its weights have the names that `transformers` gives BERT's and,
for the table [33, heads], MPNet's: `encoder.relative_attention_bias.weight`, in the released order.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bothways.encoder.config import EncoderConfig
from bothways.families.bert import FAMILY as BERT
from bothways.families.bert import bert, read, write_encoder
from bothways.families.convert import Reader, Rename, Rule
from bothways.families.family import Family, Spec, class_name
from bothways.families.mpnet import bucketed
from bothways.layers.position import Bucketed

_DISTANCES = Bucketed(buckets=32, max_distance=128, first_apart=True)
_TYPES = "encoder.embedding.types.weight"


def ernie_gram(
    vocab_size: int = 30522,
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
    """ERNIE-Gram's encoder; the defaults are the English base model's."""
    plain = bert(
        vocab_size, hidden_size, num_layers, heads, intermediate_size, max_length, token_types=0, activation=activation,
        dropout=dropout, attention_dropout=attention_dropout, eps=eps, initializer_range=initializer_range,
    )  # fmt: skip
    return bucketed(plain, _DISTANCES)


SIZES = {"base": ernie_gram()}


def released_rows(count: int) -> Tensor:
    """For each row of our table (behind, ahead, the two of the first token), its row in the released one."""
    half = count // 2
    behind, ahead = torch.arange(1, half) + half, torch.arange(1, half)
    return torch.cat((torch.tensor([0]), behind, torch.tensor([half]), ahead, torch.tensor([count - 1])))


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    reader.only("type_vocab_size", 0)
    spec = read(reader, heads, typed=False)
    return replace(spec, encoder=bucketed(spec.encoder, _DISTANCES))


def _write(spec: Spec) -> dict[str, Any]:
    return write_encoder(spec, "ernie_gram")


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    table = Rename("encoder.relative.weight", f"{prefix}encoder.relative_attention_bias.weight", released_rows)
    return [table, *(rule for rule in BERT.rules(spec, prefix) if not (isinstance(rule, Rename) and rule.ours == _TYPES))]


FAMILY = Family(
    name="ernie_gram",
    inert=BERT.inert,
    marks=BERT.marks,
    prefix="ernie_gram.",
    read=_read,
    write=_write,
    architecture=partial(class_name, "ErnieGram"),
    rules=_rules,
    in_transformers=False,
)  # fmt: skip
