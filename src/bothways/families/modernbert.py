"""ModernBERT (arXiv 2412.13663): pre-norm, rotary, GeGLU, no biases, two of three layers local.

A local layer reaches `local_attention // 2` tokens to each side: 64, so 129 with the token itself.
The first layer does not normalise its input, which the embedding has normalised already. Configs of
`transformers` 4 name the two rotary bases and the period of the global layers; those of version 5
list `layer_types` and nest `rope_parameters`. Both are read, and both are written. Ettin (arXiv 2507.11412) and RexBERT
(2602.04605) are of this family, in other shapes; Ettin's two bases are equal in most.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from bothways.encoder.config import EncoderConfig, Layer, TruncatedNormal
from bothways.errors import InputError
from bothways.families.convert import Reader, Rename, Rule, Tied, affine
from bothways.families.family import (
    ACTIVATIONS,
    INERT,
    Family,
    Heads,
    Inexpressible,
    Spec,
    attention_of,
    class_name,
    published_activation,
    read_labels,
    read_problem,
    write_labels,
)
from bothways.families.rotary import read_nested, write_scaled
from bothways.layers.attention import Attention
from bothways.layers.embedding import Embedding
from bothways.layers.heads import ClassifierHead, MaskedLmHead, Transform
from bothways.layers.mlp import Gated
from bothways.layers.norm import LayerNorm
from bothways.layers.position import Rotary
from bothways.layers.scaling import Scaling

_GLOBAL, _LOCAL = "full_attention", "sliding_attention"


def modernbert(
    vocab_size: int = 50368,
    hidden_size: int = 768,
    num_layers: int = 22,
    heads: int = 12,
    intermediate_size: int = 1152,
    max_length: int = 8192,
    window: int = 64,
    pattern: Sequence[bool] = (True, False, False),
    global_theta: float = 160_000.0,
    local_theta: float = 10_000.0,
    global_scaling: Scaling | None = None,
    local_scaling: Scaling | None = None,
    activation: str = "gelu",
    norm: LayerNorm = LayerNorm(eps=1e-5, bias=False),  # noqa: B008  (frozen)
    attention_bias: bool = False,
    mlp_bias: bool = False,
    attention_dropout: float = 0.0,
    mlp_dropout: float = 0.0,
    embedding_dropout: float = 0.0,
    initializer_range: float = 0.02,
) -> EncoderConfig:
    """ModernBERT's encoder; the defaults are ModernBERT-base. `pattern` says which layers are global."""

    wide, near = Rotary(theta=global_theta, scaling=global_scaling), Rotary(theta=local_theta, scaling=local_scaling)

    def layer(everywhere: bool) -> Layer:
        return Layer(
            mixer=Attention(
                heads=heads,
                window=None if everywhere else window,
                position=wide if everywhere else near,
                bias=attention_bias,
                dropout=attention_dropout,
                out_dropout=attention_dropout,
            ),
            mlp=Gated(size=intermediate_size, activation=activation, bias=mlp_bias, dropout=mlp_dropout),  # type: ignore[arg-type]
            norm=norm,
            order="pre",
        )

    return EncoderConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        max_length=max_length,
        embedding=Embedding(norm=norm, dropout=embedding_dropout),
        layers=tuple(layer(everywhere) for everywhere in pattern),
        final_norm=norm,
        skip_first_norm=True,
        initialisation=TruncatedNormal(std=initializer_range, residual=True),
    )


_LARGE: dict[str, Any] = {"hidden_size": 1024, "num_layers": 28, "heads": 16, "intermediate_size": 2624}
_17M: dict[str, Any] = {"hidden_size": 256, "num_layers": 7, "heads": 4, "intermediate_size": 384}
_68M: dict[str, Any] = {"hidden_size": 512, "num_layers": 19, "heads": 8, "intermediate_size": 768}
_ettin = partial(modernbert, max_length=7999, local_theta=160_000.0)
SIZES = {
    "base": modernbert(),
    "large": modernbert(**_LARGE),
    "ettin-17m": modernbert(**_17M, max_length=7999),
    "ettin-32m": _ettin(hidden_size=384, num_layers=10, heads=6, intermediate_size=576),
    "ettin-68m": _ettin(**_68M),
    "ettin-150m": _ettin(),
    "ettin-400m": _ettin(**_LARGE),
    "ettin-1b": _ettin(hidden_size=1792, num_layers=28, heads=28, intermediate_size=3840),
    "rexbert-micro": modernbert(**_17M),
    "rexbert-mini": modernbert(**_68M),
    "rexbert-base": modernbert(),
    "rexbert-large": modernbert(**_LARGE),
}


def _pattern(reader: Reader, num_layers: int) -> tuple[bool, ...]:
    """Which layers are global, as the shortest pattern that gives the list when cycled."""
    every = reader.get("global_attn_every_n_layers", 3)
    if every < 1:
        raise InputError(f"{reader.where}: global_attn_every_n_layers={every} should be at least 1")
    kinds = reader.get("layer_types", [_GLOBAL if i % every == 0 else _LOCAL for i in range(num_layers)])
    if len(kinds) != num_layers or any(kind not in (_GLOBAL, _LOCAL) for kind in kinds):
        raise InputError(f"{reader.where}: layer_types must name {num_layers} layers, each {_GLOBAL} or {_LOCAL}")
    full = [kind == _GLOBAL for kind in kinds]
    period = next(n for n in range(1, num_layers + 1) if all(full[i] == full[i % n] for i in range(num_layers)))
    return tuple(full[:period])


def _thetas(reader: Reader) -> tuple[float, float]:
    """The two bases as version 4 says them: a local one that is null is the global one, an absent one is the default."""
    if "global_rope_theta" in reader.data and reader.get("global_rope_theta") is None:
        raise InputError(f"{reader.where}: global_rope_theta=None is not supported; give the base of the global layers")
    wide = float(reader.get("global_rope_theta", 160_000.0))
    return wide, float(reader.get("local_rope_theta", wide if "local_rope_theta" in reader.data else 10_000.0))


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    num_layers = reader.get("num_hidden_layers", 22)
    if num_layers < 1:
        raise InputError(f"{reader.where}: num_hidden_layers={num_layers} should be at least 1")
    norm = LayerNorm(eps=reader.get("norm_eps", 1e-5), bias=reader.get("norm_bias", False))
    global_theta, local_theta = _thetas(reader)
    wide = read_nested(reader, _GLOBAL, global_theta, 8192)
    near = read_nested(reader, _LOCAL, local_theta, 8192)
    encoder = modernbert(
        vocab_size=reader.need("vocab_size"),
        hidden_size=reader.get("hidden_size", 768),
        num_layers=num_layers,
        heads=reader.get("num_attention_heads", 12),
        intermediate_size=reader.get("intermediate_size", 1152),
        max_length=reader.get("max_position_embeddings", 8192),
        window=reader.get("local_attention", 128) // 2,
        pattern=_pattern(reader, num_layers),
        global_theta=wide.theta,
        local_theta=near.theta,
        global_scaling=wide.scaling,
        local_scaling=near.scaling,
        activation=reader.choice("hidden_activation", ACTIVATIONS, "gelu"),
        norm=norm,
        attention_bias=reader.get("attention_bias", False),
        mlp_bias=reader.get("mlp_bias", False),
        attention_dropout=reader.dropout("attention_dropout", 0.0),
        mlp_dropout=reader.dropout("mlp_dropout", 0.0),
        embedding_dropout=reader.dropout("embedding_dropout", 0.0),
        initializer_range=reader.get("initializer_range", 0.02),
    )
    transform = Transform(
        activation=reader.choice("classifier_activation", ACTIVATIONS, "gelu"),
        bias=reader.get("classifier_bias", False),
        norm=norm,
    )
    labels = read_labels(reader)
    classifier = ClassifierHead(
        labels=len(labels) or reader.get("num_labels", 2),
        pooling=reader.choice("classifier_pooling", {"cls": "cls", "mean": "mean"}, "cls"),
        transform=transform,
        dropout=reader.dropout("classifier_dropout", 0.0),
    )
    tied, bias = reader.get("tie_word_embeddings", True), reader.get("decoder_bias", True)
    masked_lm = MaskedLmHead(transform=transform, tied=tied, bias=bias)
    return Spec(
        encoder=encoder,
        heads=Heads(
            # both heads are named `head`; with a classifier behind it, it is the classifier's
            masked_lm=masked_lm if "masked_lm" in heads and "classifier" not in heads else None,
            classifier=classifier if "classifier" in heads else None,
        ),
        pad_id=reader.get("pad_token_id", 50283),
        labels=labels,
        problem=read_problem(reader),
        classifier_pooling=classifier.pooling,
    )


def _write(spec: Spec) -> dict[str, Any]:
    encoder, first = spec.encoder, spec.encoder.layer(0)
    kinds = [_GLOBAL if attention_of(encoder.layer(i)).window is None else _LOCAL for i in range(encoder.num_layers)]
    rotary = {kind: _written_rotary(encoder, kinds.index(kind)) for kind in dict.fromkeys(kinds)}
    thetas = {kind: position.theta for kind, position in rotary.items()}
    windows = [mixer.window for mixer in encoder.attentions if mixer.window is not None]
    globals_ = [i for i, kind in enumerate(kinds) if kind == _GLOBAL]
    every = globals_[1] if len(globals_) > 1 else len(kinds)
    if not isinstance(first.norm, LayerNorm):
        raise Inexpressible("modernbert", "encoder's layers.0.norm")
    if not isinstance(first.mlp, Gated):
        raise Inexpressible("modernbert", "encoder's layers.0.mlp.type")
    config = {
        "model_type": "modernbert",
        "vocab_size": encoder.vocab_size,
        "hidden_size": encoder.hidden_size,
        "num_hidden_layers": encoder.num_layers,
        "num_attention_heads": attention_of(first).heads,
        "intermediate_size": first.mlp.size,
        "max_position_embeddings": encoder.max_length,
        "local_attention": 2 * (windows[0] if windows else 64),
        "layer_types": kinds,
        "rope_parameters": {kind: write_scaled(position) for kind, position in rotary.items()},
        "rope_scaling": _same_scaling(list(rotary.values())),
        "global_rope_theta": thetas.get(_GLOBAL, 160_000.0),
        "local_rope_theta": thetas.get(_LOCAL, 10_000.0),
        "hidden_activation": published_activation("modernbert", first.mlp.activation, "encoder's layers.0.mlp.activation"),
        "norm_eps": first.norm.eps,
        "initializer_range": encoder.initialisation.spread,
        "norm_bias": first.norm.bias,
        "attention_bias": attention_of(first).bias,
        "mlp_bias": first.mlp.bias,
        "attention_dropout": attention_of(first).dropout,
        "mlp_dropout": first.mlp.dropout,
        "embedding_dropout": encoder.embedding.dropout,
        "pad_token_id": spec.pad_id,
        "tie_word_embeddings": spec.heads.masked_lm.tied if spec.heads.masked_lm else True,
        **_write_heads(spec),
        **write_labels(spec),
    }
    if kinds == [_GLOBAL if i % every == 0 else _LOCAL for i in range(len(kinds))]:
        config["global_attn_every_n_layers"] = every  # how version 4 says it, where it can
    return config


def _written_rotary(encoder: EncoderConfig, number: int) -> Rotary:
    position = attention_of(encoder.layer(number)).position
    if not isinstance(position, Rotary):
        raise Inexpressible("modernbert", f"encoder's layers.{number}.mixer.position")
    return position


def _same_scaling(positions: list[Rotary]) -> dict[str, Any] | None:
    """The scaling of all layers, where it is one: version 4 says it once; 5 lays it over both kinds, which changes nothing."""
    first = positions[0]
    if first.scaling is None or any(position.scaling != first.scaling for position in positions):
        return None
    return {key: value for key, value in write_scaled(first).items() if key != "rope_theta"}


def _write_heads(spec: Spec) -> dict[str, Any]:
    """What there is to say of the heads that are there, and how a classifier pools in any case."""
    masked_lm, classifier = spec.heads.masked_lm, spec.heads.classifier
    head = masked_lm or classifier
    config: dict[str, Any] = {"classifier_pooling": classifier.pooling if classifier else spec.classifier_pooling}
    if head is not None and head.transform is not None:
        activation = published_activation("modernbert", head.transform.activation, "head's transform.activation")
        config |= {"classifier_activation": activation, "classifier_bias": head.transform.bias}
    if masked_lm is not None:
        config["decoder_bias"] = masked_lm.bias
    if classifier is not None:
        config["classifier_dropout"] = classifier.dropout
    return config


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    layer, heads = spec.encoder.layer(0), spec.heads
    mixer = attention_of(layer)
    assert isinstance(layer.norm, LayerNorm)
    assert isinstance(layer.mlp, Gated)
    norm_bias, ours, theirs = layer.norm.bias, "encoder.layers.{i}.", prefix + "layers.{i}."
    rules: list[Rule] = [
        Rename("encoder.embedding.tokens.weight", f"{prefix}embeddings.tok_embeddings.weight"),
        *affine("encoder.embedding.norm", f"{prefix}embeddings.norm", norm_bias),
        *affine(ours + "mixer.qkv", theirs + "attn.Wqkv", mixer.bias),
        *affine(ours + "mixer.out", theirs + "attn.Wo", mixer.bias),
        *affine(ours + "mlp.up", theirs + "mlp.Wi", layer.mlp.bias),
        *affine(ours + "mlp.down", theirs + "mlp.Wo", layer.mlp.bias),
        *affine(ours + "mlp_norm", theirs + "mlp_norm", norm_bias),
        *affine("encoder.final_norm", f"{prefix}final_norm", norm_bias),
    ]
    for i in range(1, spec.encoder.num_layers):
        rules += affine(f"encoder.layers.{i}.mixer_norm", f"{prefix}layers.{i}.attn_norm", norm_bias)
    for name, head in (("masked_lm", heads.masked_lm), ("classifier", heads.classifier)):
        if head is not None and head.transform is not None:
            rules += affine(f"heads.{name}.transform.dense", "head.dense", head.transform.bias)
            rules += affine(f"heads.{name}.transform.norm", "head.norm", norm_bias)
    if heads.masked_lm:
        tied = Tied("decoder.weight", f"{prefix}embeddings.tok_embeddings.weight")
        rules.append(tied if heads.masked_lm.tied else Rename("heads.masked_lm.decoder.weight", "decoder.weight"))
        if heads.masked_lm.bias:
            rules.append(Rename("heads.masked_lm.bias", "decoder.bias"))
    if heads.classifier:
        rules += affine("heads.classifier.out", "classifier")
    return rules


FAMILY = Family(
    name="modernbert",
    inert=(*INERT, "initializer_cutoff_factor", "deterministic_flash_attn", "sparse_prediction", "sparse_pred_ignore_index",
           "reference_compile", "repad_logits_with_grad", "position_embedding_type", "layer_norm_eps"),
    marks={"masked_lm": "head.dense.weight", "classifier": "classifier.weight"},
    prefix="model.",
    read=_read,
    write=_write,
    architecture=partial(class_name, "ModernBert"),
    rules=_rules,
)  # fmt: skip
