"""RoBERTa (arXiv 1907.11692), XLM-R (1911.02116) and CamemBERT (1911.03894): BERT's body, other heads, positions two rows later.

The position table counts from `pad_token_id + 1`, so with its 514 rows the longest sequence has 512
tokens. (BERT's Drop and Fuse rules serve unchanged.)
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from bothways.encoder.config import EncoderConfig
from bothways.families.bert import bert, body, masked_lm_head, read_encoder, write_encoder
from bothways.families.convert import Reader, Rename, Rule, Tied, affine
from bothways.families.family import INERT, Family, Heads, Inexpressible, Spec, class_name, read_labels, read_problem
from bothways.layers.heads import ClassifierHead, Transform
from bothways.layers.position import Learned


def roberta(
    vocab_size: int = 50265,
    hidden_size: int = 768,
    num_layers: int = 12,
    heads: int = 12,
    intermediate_size: int = 3072,
    max_length: int = 512,
    initializer_range: float = 0.02,
) -> EncoderConfig:
    """RoBERTa's encoder; the defaults are roberta-base."""
    return bert(
        vocab_size, hidden_size, num_layers, heads, intermediate_size, max_length, token_types=1, eps=1e-5, position_offset=2,
        initializer_range=initializer_range,
    )  # fmt: skip


SIZES = {
    "base": roberta(),
    "large": roberta(hidden_size=1024, num_layers=24, heads=16, intermediate_size=4096),
    "xlm-base": roberta(vocab_size=250002),
    "xlm-large": roberta(vocab_size=250002, hidden_size=1024, num_layers=24, heads=16, intermediate_size=4096),
    "camembert-base": roberta(vocab_size=32005),
    "camembert-large": roberta(vocab_size=32005, hidden_size=1024, num_layers=24, heads=16, intermediate_size=4096),
}


def read(reader: Reader, heads: Collection[str]) -> Spec:
    pad_id = reader.get("pad_token_id", 1)
    encoder = read_encoder(reader, position_offset=pad_id + 1)
    dropout = reader.dropout("classifier_dropout", encoder.embedding.dropout)
    return read_spec(reader, heads, encoder, dropout, pad_id)


def read_spec(reader: Reader, heads: Collection[str], encoder: EncoderConfig, dropout: float, pad_id: int) -> Spec:
    """The heads on an encoder, which MPNet has too; `dropout` is the classifier's."""
    labels, tanh = read_labels(reader), Transform(activation="tanh")
    classifier = ClassifierHead(
        labels=len(labels) or reader.get("num_labels", 2), transform=tanh, dropout=dropout, input_dropout=dropout
    )
    return Spec(
        encoder=encoder,
        heads=Heads(
            # the head's activation is gelu whatever the layers use
            masked_lm=masked_lm_head(encoder, "gelu") if "masked_lm" in heads else None,
            classifier=classifier if "classifier" in heads else None,
            pooler=tanh if "pooler" in heads else None,
        ),
        pad_id=pad_id,
        labels=labels,
        problem=read_problem(reader),
    )


def _write(spec: Spec, model_type: str) -> dict[str, Any]:
    position = spec.encoder.embedding.position
    if not isinstance(position, Learned):
        raise Inexpressible(model_type, "encoder's embedding.position")
    # bos and eos as in every published RoBERTa; they do not enter the numbers
    return {"bos_token_id": 0, "eos_token_id": 2, **write_encoder(spec, model_type, position.offset)}


def rules(spec: Spec, prefix: str) -> list[Rule]:
    return body(prefix) + of_heads(spec, prefix)


def of_heads(spec: Spec, prefix: str) -> list[Rule]:
    """The weights of RoBERTa's heads, which MPNet has too."""
    table: list[Rule] = []
    heads = spec.heads
    if heads.masked_lm:
        table += [
            *affine("heads.masked_lm.transform.dense", "lm_head.dense"),
            *affine("heads.masked_lm.transform.norm", "lm_head.layer_norm"),
            Rename("heads.masked_lm.bias", "lm_head.bias"),
            Tied("lm_head.decoder.weight", f"{prefix}embeddings.word_embeddings.weight"),
            Tied("lm_head.decoder.bias", "lm_head.bias"),
        ]
    if heads.classifier:
        table += [
            *affine("heads.classifier.transform.dense", "classifier.dense"),
            *affine("heads.classifier.out", "classifier.out_proj"),
        ]
    if heads.pooler:
        table += affine("heads.pooler.dense", f"{prefix}pooler.dense")
    return table


def _family(model_type: str, prefix: str) -> Family:
    return Family(
        name=model_type,
        inert=INERT,
        marks={
            "masked_lm": "lm_head.dense.weight",
            "classifier": "classifier.out_proj.weight",
            "pooler": "pooler.dense.weight",
        },
        prefix="roberta.",
        read=read,
        write=lambda spec: _write(spec, model_type),
        architecture=partial(class_name, prefix),
        rules=rules,
    )


FAMILY = _family("roberta", "Roberta")
XLM_FAMILY = _family("xlm-roberta", "XLMRoberta")
CAMEMBERT_FAMILY = _family("camembert", "Camembert")
