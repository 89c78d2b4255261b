"""Encoders that are of no published family: any mixture of decisions, as it is.

`config.json` holds our own configs, and the weights have our own names. No other library reads such a folder; what a published
family can say is better saved as that family.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any, get_args

import pydantic
import torch
from torch import nn

from bothways.config import explain, from_json, to_json
from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.families.convert import Reader, Rename, Rule
from bothways.families.family import INERT, Family, Heads, Spec, class_name, read_labels, read_problem, write_labels
from bothways.families.heads import build_heads
from bothways.layers.heads import ClassifierHead, ClassifierPooling, Transform

NAME = "bothways"


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    for part in ("encoder", "heads"):
        if reader.data.get(part) is None:
            raise InputError(f"{reader.where}: no '{part}', which this family needs")
    encoder = from_json(EncoderConfig, json.dumps(reader.get("encoder", {})), f"{reader.where}: encoder")
    labels, held = read_labels(reader), _read_heads(reader)
    pooling = reader.choice("classifier_pooling", {one: one for one in get_args(ClassifierPooling)}, "mean")
    if held.classifier is not None and labels and len(labels) != held.classifier.labels:
        raise InputError(
            f"{reader.where}: id2label names {len(labels)} classes, heads.classifier.labels is {held.classifier.labels}"
        )
    if "classifier" in heads and held.classifier is None:
        # one yet to come: as ModernBERT's
        transform = Transform(bias=False, norm=encoder.final_norm)
        held = replace(held, classifier=ClassifierHead(labels=len(labels) or 2, pooling=pooling, transform=transform))
    _check_built(held, encoder, reader.where)
    return Spec(
        encoder=encoder,
        heads=held,
        pad_id=reader.get("pad_token_id", 0),
        labels=labels,
        problem=read_problem(reader),
        classifier_pooling=pooling,
    )


def _check_built(heads: Heads, encoder: EncoderConfig, where: str) -> None:
    """Refuse heads that this encoder cannot have."""
    try:
        with torch.device("meta"):
            build_heads(heads, encoder)
    except InputError as error:
        raise InputError(f"{where}: heads: {error}") from None


def _read_heads(reader: Reader) -> Heads:
    published = reader.get("heads", {})
    if odd := set(published) - set(Heads.__dataclass_fields__):
        raise InputError(f"{reader.where}: heads: there is no '{min(odd)}'; there are {', '.join(Heads.__dataclass_fields__)}")
    try:
        return pydantic.TypeAdapter(Heads).validate_json(json.dumps(published))
    except pydantic.ValidationError as error:
        raise InputError(f"{reader.where}: heads: {explain(error, Heads)}") from None


def _write(spec: Spec) -> dict[str, Any]:
    held = {name: json.loads(to_json(getattr(spec.heads, name))) for name in sorted(spec.heads.present())}
    return {
        "model_type": NAME,
        "encoder": json.loads(to_json(spec.encoder)),
        "heads": held,
        "pad_token_id": spec.pad_id,
        "classifier_pooling": spec.classifier_pooling,
        **write_labels(spec),
    }


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    with torch.device("meta"):
        parts = nn.ModuleDict({"encoder": Encoder(spec.encoder), "heads": build_heads(spec.heads, spec.encoder)})
    return [Rename(name, name) for name in parts.state_dict()]


FAMILY = Family(
    name=NAME,
    inert=INERT,
    # nothing shows a head but the config, which names it
    marks=dict.fromkeys(Heads.__dataclass_fields__, ""),
    prefix="",
    read=_read,
    write=_write,
    architecture=lambda heads: class_name("Bothways", heads),
    rules=_rules,
    without=(),
    in_transformers=False,
)
