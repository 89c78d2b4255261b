"""The heads of DeBERTa, which are the same in all its versions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from bothways.encoder.config import EncoderConfig
from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.families.convert import Reader, Rename, Rule, Tied, affine
from bothways.families.family import ACTIVATIONS, Heads, Spec, published_activation, read_labels, read_problem, write_labels
from bothways.layers.heads import ClassifierHead, MaskedLmHead, Transform
from bothways.layers.replaced_token import ReplacedTokenHead

# The masked-language head goes by one of two sets of names: the one that `transformers` gave it first, and that of the
# released weights. Absolute positions that no embedding adds are the enhanced mask decoder's.
MARKS = {
    "cls_predictions": "cls.predictions.transform.dense.weight",
    "lm_predictions": "lm_predictions.lm_head.dense.weight",
    "mask_decoder": "embeddings.position_embeddings.weight",
    "classifier": "classifier.weight",
    "replaced_token": "mask_predictions.dense.weight",
}


def read_spec(reader: Reader, heads: Collection[str], encoder: EncoderConfig) -> Spec:
    """The heads, whichever version the encoder is of. A masked-language head goes by either of two sets of names."""
    layer, labels = encoder.layer(0), read_labels(reader)
    transform = Transform(activation=layer.mlp.activation, norm=layer.norm)
    legacy = reader.get("legacy", True)
    classifier = ClassifierHead(
        labels=len(labels) or reader.get("num_labels", 2),
        transform=Transform(activation=reader.choice("pooler_hidden_act", ACTIVATIONS, "gelu")),
        dropout=reader.dropout("cls_dropout", encoder.embedding.dropout),
        input_dropout=reader.dropout("pooler_dropout", 0.0),
    )
    named = {"cls_predictions", "lm_predictions"} & set(heads)
    return Spec(
        encoder=encoder,
        heads=Heads(
            masked_lm=MaskedLmHead(transform=transform) if named or "masked_lm" in heads else None,
            mask_decoder=MaskDecoderHead() if "mask_decoder" in heads and encoder.embedding.position is None else None,
            replaced_token=ReplacedTokenHead(beside_first=layer.norm, transform=replace(transform, norm=None))
            if "replaced_token" in heads
            else None,
            classifier=classifier if "classifier" in heads else None,
        ),
        pad_id=reader.get("pad_token_id", 0),
        labels=labels,
        problem=read_problem(reader),
        legacy="cls_predictions" in named if named else legacy,
    )


def write_heads(spec: Spec, model_type: str) -> dict[str, Any]:
    """What a `config.json` says of the heads.

    Raises:
        Inexpressible: an activation without a published name.
    """
    config: dict[str, Any] = {"legacy": spec.legacy, **write_labels(spec)}
    if (head := spec.heads.classifier) is not None and head.transform is not None:
        activation = published_activation(model_type, head.transform.activation, "classifier head's transform.activation")
        config |= {"pooler_hidden_act": activation, "pooler_dropout": head.input_dropout, "cls_dropout": head.dropout}
    return config


def of_heads(spec: Spec, prefix: str) -> list[Rule]:
    """The weights of the heads of any version."""
    rules: list[Rule] = []
    if spec.heads.masked_lm:
        name = "cls.predictions" if spec.legacy else "lm_predictions.lm_head"
        transform = f"{name}.transform" if spec.legacy else name
        rules += [
            *affine("heads.masked_lm.transform.dense", f"{transform}.dense"),
            *affine("heads.masked_lm.transform.norm", f"{transform}.LayerNorm"),
            Rename("heads.masked_lm.bias", f"{name}.bias"),
        ]
        if spec.legacy:
            rules.append(Tied(f"{name}.decoder.weight", f"{prefix}embeddings.word_embeddings.weight"))
            rules.append(Tied(f"{name}.decoder.bias", f"{name}.bias"))
    if spec.heads.replaced_token:
        rules += affine("heads.replaced_token.norm", "mask_predictions.LayerNorm")
        rules += affine("heads.replaced_token.transform.dense", "mask_predictions.dense")
        rules += affine("heads.replaced_token.out", "mask_predictions.classifier")
    if spec.heads.classifier:
        rules += affine("heads.classifier.transform.dense", "pooler.dense") + affine("heads.classifier.out", "classifier")
    return rules
