"""NomicBERT (arXiv 2402.01613): post-norm BERT with rotary positions, SwiGLU, and no biases but the norms' and the head's.

Its configs come in two spellings, and both are read: that of `transformers` 5, and that of the released
code, which follows GPT-2's (`n_embd`, `n_inner`, `rotary_emb_base`). What the released code can do beside
(biases, pre-norm, rotary positions over a part of the features) no released model does, and is refused.
The weights have the released names in either case; its gate, `fc12`, is the half that is activated.

A released masked-LM head has no biases (`mlp_fc1_bias` is false), that of `transformers` has them.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from bothways.encoder.config import EncoderConfig, Layer, TruncatedNormal
from bothways.errors import InputError
from bothways.families.convert import Fuse, Reader, Rename, Rule, Tied, affine
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
    read_types,
    write_labels,
)
from bothways.layers.attention import Attention
from bothways.layers.embedding import Embedding
from bothways.layers.heads import ClassifierHead, MaskedLmHead, Transform
from bothways.layers.mlp import Gated
from bothways.layers.norm import LayerNorm
from bothways.layers.position import Rotary

_POOLER = Transform(activation="tanh")
# of the released code: what all released models say; left out, they mean something else there
_RELEASED = {"rotary_emb_fraction": 1.0, "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False}
# of the released code: what no released model asks for
_OFF = ("prenorm", "parallel_block", "causal", "use_rms_norm", "rotary_emb_interleaved", "scale_attn_by_inverse_layer_idx")
_ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu"}
_INERT = (
    "embd_pdrop", "fused_bias_fc", "fused_dropout_add_ln", "use_flash_attn", "use_xentropy", "dense_seq_output",
    "add_pooling_layer", "reorder_and_upcast_attn", "scale_attn_weights", "summary_activation", "summary_first_dropout",
    "summary_proj_to_labels", "summary_type", "summary_use_proj", "last_layer_subset", "parallel_block_tied_norm", "n_inner",
)  # fmt: skip


def nomic(
    vocab_size: int = 30528,
    hidden_size: int = 768,
    num_layers: int = 12,
    heads: int = 12,
    intermediate_size: int = 3072,
    max_length: int = 2048,
    head_size: int | None = None,
    token_types: int = 2,
    theta: float = 1000.0,
    activation: str = "silu",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    eps: float = 1e-12,
    initializer_range: float = 0.02,
) -> EncoderConfig:
    """NomicBERT's encoder; the defaults are nomic-bert-2048."""
    norm = LayerNorm(eps=eps)
    position = Rotary(theta=theta)
    layer = Layer(
        mixer=Attention(heads=heads, head_size=head_size, position=position, bias=False, dropout=attention_dropout),
        mlp=Gated(size=intermediate_size, activation=activation, bias=False),  # type: ignore[arg-type]
        norm=norm,
        order="post",
        dropout=dropout,
    )
    return EncoderConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        max_length=max_length,
        embedding=Embedding(token_types=token_types, norm=norm, dropout=dropout),
        layers=(layer,),
        initialisation=TruncatedNormal(std=initializer_range),
    )


SIZES = {"2048": nomic(), "embed-text-v1.5": nomic(max_length=8192)}


def _either(reader: Reader, key: str, released: str, default: Any) -> Any:
    """The value under the name of `transformers`, or under the released one."""
    return reader.get(key, reader.get(released, default))


def _theta(reader: Reader) -> float:
    rope = Reader(reader.get("rope_parameters", {}), f"{reader.where}: rope_parameters")
    rope.only("rope_type", "default")
    rope.only("partial_rotary_factor", 1.0)
    if strange := rope.unknown(("rope_theta",)):
        raise InputError(f"{rope.where}: {', '.join(strange)} is not supported")
    return float(rope.get("rope_theta", float(reader.get("rotary_emb_base", 1000.0))))


def _longest(reader: Reader) -> int:
    longest = reader.get("n_positions", reader.get("max_position_embeddings", 2048))
    # with a factor, angles beyond the trained length change with the length of the row they are in
    trained = reader.get("max_trained_positions", 2048)
    return longest if reader.get("rotary_scaling_factor") is None else min(longest, trained)


def _check_released(reader: Reader) -> None:
    released = "n_embd" in reader.data
    for key, value in _RELEASED.items():
        if released and key not in reader.data:
            raise InputError(f"{reader.where}: no '{key}', without which the released code does what is not supported")
        reader.only(key, value)
    for key in _OFF:
        reader.only(key, False)
    reader.only("rotary_emb_scale_base", None)
    reader.only("num_experts", None, 0)
    reader.only("tie_word_embeddings", True)


def _encoder(reader: Reader) -> EncoderConfig:
    _check_released(reader)
    hidden, heads = _either(reader, "hidden_size", "n_embd", 768), _either(reader, "num_attention_heads", "n_head", 12)
    head_size, multiple = reader.get("head_dim", hidden // heads), reader.get("pad_vocab_size_multiple", 1)
    gate = reader.choice("activation_function", _ACTIVATIONS, "swiglu")
    return nomic(
        vocab_size=-(-reader.need("vocab_size") // multiple) * multiple,
        hidden_size=hidden,
        num_layers=_either(reader, "num_hidden_layers", "n_layer", 12),
        heads=heads,
        # the released code rounds up to a multiple of 256
        intermediate_size=reader.get("intermediate_size", -(-reader.get("n_inner", 3072) // 256) * 256),
        max_length=_longest(reader),
        head_size=None if head_size * heads == hidden else head_size,
        token_types=read_types(reader),
        theta=_theta(reader),
        activation=reader.choice("hidden_act", ACTIVATIONS, gate),
        dropout=float(_either(reader, "hidden_dropout_prob", "resid_pdrop", 0.0)),
        attention_dropout=float(_either(reader, "attention_probs_dropout_prob", "attn_pdrop", 0.0)),
        eps=_either(reader, "layer_norm_eps", "layer_norm_epsilon", 1e-12),
        initializer_range=reader.get("initializer_range", 0.02),
    )


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    encoder = _encoder(reader)
    layer, labels = encoder.layer(0), read_labels(reader)
    biases = reader.get("mlp_fc1_bias", True)
    transform = Transform(activation=layer.mlp.activation, bias=biases, norm=layer.norm)
    dropout = reader.dropout("classifier_dropout", encoder.embedding.dropout)
    classifier = ClassifierHead(labels=len(labels) or reader.get("num_labels", 2), transform=_POOLER, dropout=dropout)
    return Spec(
        encoder=encoder,
        heads=Heads(
            masked_lm=MaskedLmHead(transform=transform, bias=biases) if "masked_lm" in heads else None,
            classifier=classifier if "classifier" in heads else None,
        ),
        pad_id=reader.get("pad_token_id", 0),
        labels=labels,
        problem=read_problem(reader),
    )


def _write(spec: Spec) -> dict[str, Any]:
    encoder, layer, heads = spec.encoder, spec.encoder.layer(0), spec.heads
    position = attention_of(layer).position
    if not isinstance(layer.norm, LayerNorm) or not isinstance(position, Rotary):
        raise Inexpressible("nomic_bert", "encoder's layers.0")
    return {
        "model_type": "nomic_bert",
        "vocab_size": encoder.vocab_size,
        "hidden_size": encoder.hidden_size,
        "num_hidden_layers": encoder.num_layers,
        "num_attention_heads": attention_of(layer).heads,
        "head_dim": attention_of(layer).sizes(encoder.hidden_size)[2],
        "intermediate_size": layer.mlp.size,
        "max_position_embeddings": encoder.max_length,
        "n_positions": encoder.max_length,
        "type_vocab_size": encoder.embedding.token_types,
        "rope_parameters": {"rope_type": "default", "rope_theta": position.theta},
        "hidden_act": published_activation("nomic_bert", layer.mlp.activation, "encoder's layers.0.mlp.activation"),
        "hidden_dropout_prob": layer.dropout,
        "attention_probs_dropout_prob": attention_of(layer).dropout,
        **({"classifier_dropout": heads.classifier.dropout} if heads.classifier else {}),
        "layer_norm_eps": layer.norm.eps,
        "initializer_range": encoder.initialisation.spread,
        "pad_token_id": spec.pad_id,
        "tie_word_embeddings": True,
        **(_RELEASED if heads.masked_lm and not heads.masked_lm.bias else {}),
        **write_labels(spec),
    }


def _body(prefix: str) -> list[Rule]:
    ours, theirs = "encoder.layers.{i}.", prefix + "encoder.layers.{i}."
    return [
        Rename("encoder.embedding.tokens.weight", f"{prefix}embeddings.word_embeddings.weight"),
        Rename("encoder.embedding.types.weight", f"{prefix}embeddings.token_type_embeddings.weight"),
        *affine("encoder.embedding.norm", f"{prefix}emb_ln"),
        Rename(ours + "mixer.qkv.weight", theirs + "attn.Wqkv.weight"),
        Rename(ours + "mixer.out.weight", theirs + "attn.out_proj.weight"),
        Fuse(ours + "mlp.up.weight", (theirs + "mlp.fc12.weight", theirs + "mlp.fc11.weight")),
        Rename(ours + "mlp.down.weight", theirs + "mlp.fc2.weight"),
        *affine(ours + "mixer_norm", theirs + "norm1"),
        *affine(ours + "mlp_norm", theirs + "norm2"),
    ]


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    rules, masked_lm = _body(prefix), spec.heads.masked_lm
    if masked_lm:
        rules += affine("heads.masked_lm.transform.dense", "cls.predictions.transform.dense", masked_lm.bias)
        rules += affine("heads.masked_lm.transform.norm", "cls.predictions.transform.layer_norm")
        rules.append(Tied("cls.predictions.decoder.weight", f"{prefix}embeddings.word_embeddings.weight"))
    if masked_lm and masked_lm.bias:
        rules.append(Rename("heads.masked_lm.bias", "cls.predictions.bias"))
        rules.append(Tied("cls.predictions.decoder.bias", "cls.predictions.bias"))
    if spec.heads.classifier:
        rules += affine("heads.classifier.transform.dense", f"{prefix}pooler.dense")
        rules += affine("heads.classifier.out", "classifier")
    return rules


FAMILY = Family(
    name="nomic_bert",
    inert=(*INERT, *_INERT),
    marks={"masked_lm": "cls.predictions.transform.dense.weight", "classifier": "classifier.weight"},
    prefix="nomic_bert.",
    released_prefix="bert.",
    read=_read,
    write=_write,
    architecture=partial(class_name, "NomicBert"),
    rules=_rules,
)  # fmt: skip
