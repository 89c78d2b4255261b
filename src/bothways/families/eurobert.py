"""EuroBERT (arXiv 2503.05500): Llama's shape without the causal mask, a vocabulary of its own on top.

Its classifier pools "late" by default: each token goes through dense, GELU and output layer, and a text has the mean of
its tokens' logits. Configs older than version 5 of `transformers` call that key `clf_pooling`.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from bothways.encoder.config import EncoderConfig
from bothways.families.convert import Reader, Rename, Rule, affine
from bothways.families.decoder import DECODER_INERT, decoder, decoder_rules, read_decoder, write_decoder
from bothways.families.family import (
    Family,
    Heads,
    Inexpressible,
    Spec,
    attention_of,
    class_name,
    mlp_of,
    read_labels,
    read_problem,
    write_labels,
)
from bothways.layers.heads import ClassifierHead, MaskedLmHead, Transform
from bothways.layers.position import Rotary

_POOLINGS = {"late": "late", "mean": "mean", "bos": "cls"}


def eurobert(
    vocab_size: int = 128256,
    hidden_size: int = 768,
    num_layers: int = 12,
    heads: int = 12,
    kv_heads: int | None = None,
    intermediate_size: int = 3072,
    max_length: int = 8192,
    theta: float = 250_000.0,
    eps: float = 1e-5,
    initializer_range: float = 0.02,
) -> EncoderConfig:
    """EuroBERT's encoder; the defaults are EuroBERT-210m."""
    return decoder(
        vocab_size, hidden_size, num_layers, heads, kv_heads, intermediate_size, max_length, Rotary(theta=theta), eps=eps,
        initializer_range=initializer_range,
    )  # fmt: skip


SIZES = {
    "210m": eurobert(),
    "610m": eurobert(hidden_size=1152, num_layers=26, heads=18, kv_heads=6, intermediate_size=4096),
    "2.1b": eurobert(hidden_size=2304, num_layers=32, heads=18, kv_heads=6, intermediate_size=6144),
}


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    reader.only("tie_word_embeddings", False)
    bias, mlp_bias = reader.get("attention_bias", False), reader.get("mlp_bias", False)
    key = "classifier_pooling" if reader.get("classifier_pooling") else "clf_pooling"
    labels = read_labels(reader)
    classifier = ClassifierHead(
        labels=len(labels) or reader.get("num_labels", 2),
        pooling=reader.choice(key, _POOLINGS, "late"),
        transform=Transform(activation="gelu"),
    )
    return Spec(
        encoder=read_decoder(reader, 8192, 1e-5, bias, bias, mlp_bias),
        heads=Heads(
            # the vocabulary's bias goes with those of the MLPs
            masked_lm=MaskedLmHead(transform=None, tied=False, bias=mlp_bias) if "masked_lm" in heads else None,
            classifier=classifier if "classifier" in heads else None,
        ),
        pad_id=reader.get("pad_token_id", 128001),
        labels=labels,
        problem=read_problem(reader),
        classifier_pooling=classifier.pooling,
    )


def _write(spec: Spec) -> dict[str, Any]:
    classifier, layer = spec.heads.classifier, spec.encoder.layer(0)
    pooling = classifier.pooling if classifier else spec.classifier_pooling
    named = {ours: theirs for theirs, ours in _POOLINGS.items()}
    if pooling not in named:
        raise Inexpressible("eurobert", f"classifier head's pooling '{pooling}'")
    return {
        **write_decoder(spec, "eurobert"),
        "pad_token_id": spec.pad_id,
        "attention_bias": attention_of(layer).bias,
        "mlp_bias": mlp_of(layer).bias,
        "tie_word_embeddings": False,
        "classifier_pooling": named[pooling],
        **write_labels(spec),
    }


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    rules, heads = decoder_rules(spec, prefix), spec.heads
    if heads.masked_lm:
        rules.append(Rename("heads.masked_lm.decoder.weight", "lm_head.weight"))
        if heads.masked_lm.bias:
            rules.append(Rename("heads.masked_lm.bias", "lm_head.bias"))
    if heads.classifier:
        rules += affine("heads.classifier.transform.dense", "dense") + affine("heads.classifier.out", "classifier")
    return rules


FAMILY = Family(
    name="eurobert",
    # its class has no dropout but attention's, and is never causal
    inert=(*DECODER_INERT, "hidden_dropout", "is_causal", "bos_token", "eos_token", "pad_token", "mask_token", "clf_pooling"),
    marks={"masked_lm": "lm_head.weight", "classifier": "classifier.weight"},
    prefix="model.",
    read=_read,
    write=_write,
    architecture=partial(class_name, "EuroBert"),
    rules=_rules,
)  # fmt: skip
