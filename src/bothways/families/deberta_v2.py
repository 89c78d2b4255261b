"""DeBERTa's second and third versions (arXiv 2006.03654, 2111.09543), and mDeBERTa.

Positions lie in logarithmic buckets and go through the projections of contents; the large models of version 2 have a
convolution beside the first layer.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from bothways.encoder.config import EncoderConfig
from bothways.families.convert import Fuse, Reader, Rule, affine
from bothways.families.deberta import INERT_KEYS, body, deberta, read_encoder, write_spec
from bothways.families.deberta_heads import MARKS, of_heads, read_spec
from bothways.families.family import ACTIVATIONS, Family, Spec, attention_of, class_name, published_activation
from bothways.layers.convolution import Convolution
from bothways.layers.norm import LayerNorm
from bothways.layers.position import Disentangled

_EPS = 1e-7
POSITION = Disentangled(buckets=256, shared=True, norm=LayerNorm(eps=_EPS), dropout=0.1)
CONVOLUTION = Convolution(norm=LayerNorm(eps=_EPS), dropout=0.1)


def deberta_v2(
    vocab_size: int = 128_100,
    hidden_size: int = 768,
    num_layers: int = 12,
    heads: int = 12,
    intermediate_size: int = 3072,
    max_length: int = 512,
    initializer_range: float = 0.02,
    position: Disentangled | None = POSITION,
    absolute: bool = False,
    convolution: Convolution | None = None,
) -> EncoderConfig:
    """The encoder of versions 2 and 3; the defaults are deberta-v3-base."""
    return deberta(
        vocab_size, hidden_size, num_layers, heads, intermediate_size, max_length, initializer_range=initializer_range,
        position=position, absolute=absolute, key_bias=True, convolution=convolution,
    )  # fmt: skip


SIZES = {
    "v2-xlarge": deberta_v2(hidden_size=1536, num_layers=24, heads=24, intermediate_size=6144, convolution=CONVOLUTION),
    "v2-xxlarge": deberta_v2(hidden_size=1536, num_layers=48, heads=24, intermediate_size=6144, convolution=CONVOLUTION),
    "v3-xsmall": deberta_v2(hidden_size=384, heads=6, intermediate_size=1536),
    "v3-small": deberta_v2(num_layers=6),
    "v3-base": deberta_v2(),
    "v3-large": deberta_v2(hidden_size=1024, num_layers=24, heads=16, intermediate_size=4096),
    "mdeberta-v3-base": deberta_v2(vocab_size=251_000),
}


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    reader.only("attention_head_size", reader.need("hidden_size") // reader.need("num_attention_heads"))
    norm = LayerNorm(eps=reader.get("layer_norm_eps", _EPS))
    normed = reader.choice("norm_rel_ebd", {"none": None, "layer_norm": norm}, "none")
    buckets = reader.get("position_buckets", -1)
    encoder = read_encoder(
        reader,
        buckets=buckets if buckets > 0 else None,
        shared=reader.get("share_att_key", False),
        norm=normed,
        key_bias=True,
        convolution=_convolution(reader, norm),
    )
    return read_spec(reader, heads, encoder)


def _convolution(reader: Reader, norm: LayerNorm) -> Convolution | None:
    kernel = reader.get("conv_kernel_size", 0)
    activation = reader.choice("conv_act", {**ACTIVATIONS, "tanh": "tanh"}, "tanh")
    groups, dropout = reader.get("conv_groups", 1), reader.dropout("hidden_dropout_prob", 0.1)
    if kernel <= 0:
        return None
    return Convolution(kernel=kernel, groups=groups, activation=activation, norm=norm, dropout=dropout)


def _write(spec: Spec) -> dict[str, Any]:
    encoder, position = spec.encoder, attention_of(spec.encoder.layer(0)).position
    config = write_spec(spec, "deberta-v2")
    if isinstance(position, Disentangled):
        config |= {
            "position_buckets": position.buckets or -1,
            "share_att_key": position.shared,
            "norm_rel_ebd": "none" if position.norm is None else position.norm.type,
        }
    config["conv_kernel_size"] = 0
    if (convolution := encoder.convolution) is not None:
        activation = convolution.activation
        config |= {
            "conv_kernel_size": convolution.kernel,
            "conv_groups": convolution.groups,
            "conv_act": activation
            if activation == "tanh"
            else published_activation("deberta-v2", activation, "encoder's convolution.activation"),
        }
    return config


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    position = attention_of(spec.encoder.layer(0)).position
    rules = body(spec, prefix, ("pos_key_proj", "pos_query_proj")) + of_heads(spec, prefix)
    for part in ("weight", "bias"):
        separate = tuple(f"{prefix}encoder.layer.{{i}}.attention.self.{name}_proj.{part}" for name in ("query", "key", "value"))
        rules.append(Fuse(f"encoder.layers.{{i}}.mixer.qkv.{part}", separate))
    if isinstance(position, Disentangled) and position.norm is not None:
        rules += affine("encoder.relative.norm", f"{prefix}encoder.LayerNorm")
    if spec.encoder.convolution is not None:
        rules += affine("encoder.convolution.conv", f"{prefix}encoder.conv.conv")
        rules += affine("encoder.convolution.norm", f"{prefix}encoder.conv.LayerNorm")
    return rules


FAMILY = Family(
    name="deberta-v2",
    inert=INERT_KEYS,
    marks=MARKS,
    prefix="deberta.",
    read=_read,
    write=_write,
    architecture=partial(class_name, "DebertaV2"),
    rules=_rules,
)
