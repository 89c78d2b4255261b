"""The trunk of Llama-shaped families: pre-norm, RMS norms, rotary, a gated MLP, grouped heads."""

from __future__ import annotations

from typing import Any

from bothways.encoder.config import EncoderConfig, Layer, TruncatedNormal
from bothways.families.convert import Drop, Fuse, Reader, Rename, Rule, affine
from bothways.families.family import ACTIVATIONS, INERT, Inexpressible, Spec, attention_of, mlp_of, published_activation
from bothways.families.rotary import read_rotary, write_rotary
from bothways.layers.attention import Attention
from bothways.layers.embedding import Embedding
from bothways.layers.mlp import Gated
from bothways.layers.norm import RmsNorm
from bothways.layers.position import Rotary

DECODER_INERT = (*INERT, "pretraining_tp")


def decoder(
    vocab_size: int,
    hidden_size: int,
    num_layers: int,
    heads: int,
    kv_heads: int | None,
    intermediate_size: int,
    max_length: int,
    position: Rotary,
    head_size: int | None = None,
    causal: bool = False,
    window: int | None = None,
    bias: bool = False,
    out_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: bool = False,
    activation: str = "silu",
    eps: float = 1e-5,
    attention_dropout: float = 0.0,
    initializer_range: float = 0.02,
) -> EncoderConfig:
    """A Llama-shaped encoder. `window` is how many tokens a token sees to either side; causal ones see none ahead."""
    norm = RmsNorm(eps=eps)
    mixer = Attention(
        heads=heads,
        kv_heads=None if kv_heads == heads else kv_heads,
        head_size=None if head_size and head_size * heads == hidden_size else head_size,
        window=window,
        causal=causal,
        position=position,
        qk_norm=norm if qk_norm else None,
        bias=bias,
        out_bias=None if out_bias == bias else out_bias,
        dropout=attention_dropout,
    )
    mlp = Gated(size=intermediate_size, activation=activation, bias=mlp_bias)  # type: ignore[arg-type]
    return EncoderConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        max_length=max_length,
        embedding=Embedding(),
        layers=(Layer(mixer=mixer, mlp=mlp, norm=norm, order="pre"),),
        final_norm=norm,
        initialisation=TruncatedNormal(std=initializer_range),
    )


def read_decoder(
    reader: Reader,
    max_length: int,
    eps: float,
    bias: bool,
    out_bias: bool,
    mlp_bias: bool,
    kv_heads: int | None = None,
    causal: bool = False,
    window: int | None = None,
    head_size: int | None = None,
    qk_norm: bool = False,
) -> EncoderConfig:
    """The encoder of a Llama-shaped `config.json`; what is given are its family's defaults and decisions."""
    longest = reader.get("max_position_embeddings", max_length)
    return decoder(
        vocab_size=reader.need("vocab_size"),
        hidden_size=reader.need("hidden_size"),
        num_layers=reader.need("num_hidden_layers"),
        heads=reader.need("num_attention_heads"),
        kv_heads=reader.get("num_key_value_heads", kv_heads),
        head_size=reader.get("head_dim", head_size),
        intermediate_size=reader.need("intermediate_size"),
        max_length=longest,
        position=read_rotary(reader, 10_000.0, longest),
        causal=causal,
        window=window,
        bias=bias,
        out_bias=out_bias,
        mlp_bias=mlp_bias,
        qk_norm=qk_norm,
        activation=reader.choice("hidden_act", ACTIVATIONS, "silu"),
        eps=reader.get("rms_norm_eps", eps),
        attention_dropout=reader.dropout("attention_dropout", 0.0),
        initializer_range=reader.get("initializer_range", 0.02),
    )


def write_decoder(spec: Spec, model_type: str) -> dict[str, Any]:
    """The keys that Llama-shaped families share.

    Raises:
        Inexpressible: another norm, other positions, an activation without a published name.
    """
    encoder, layer = spec.encoder, spec.encoder.layer(0)
    mixer = attention_of(layer)
    heads, kv_heads, head_size = mixer.sizes(encoder.hidden_size)
    if not isinstance(layer.norm, RmsNorm):
        raise Inexpressible(model_type, "encoder's layers.0.norm")
    if not isinstance(mixer.position, Rotary):
        raise Inexpressible(model_type, "encoder's layers.0.mixer.position")
    return {
        "model_type": model_type,
        "vocab_size": encoder.vocab_size,
        "hidden_size": encoder.hidden_size,
        "num_hidden_layers": encoder.num_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_size,
        "intermediate_size": layer.mlp.size,
        "max_position_embeddings": encoder.max_length,
        "hidden_act": published_activation(model_type, layer.mlp.activation, "encoder's layers.0.mlp.activation"),
        "rms_norm_eps": layer.norm.eps,
        "attention_dropout": mixer.dropout,
        "initializer_range": encoder.initialisation.spread,
        **write_rotary(mixer.position),
        # a file may say that there is none, which is read as 0
        **({"pad_token_id": spec.pad_id} if spec.pad_id else {}),
    }


def decoder_rules(spec: Spec, prefix: str) -> list[Rule]:
    """The weights of a Llama-shaped encoder under a prefix."""
    layer = spec.encoder.layer(0)
    mixer, mlp = attention_of(layer), mlp_of(layer)
    heads, kv_heads, _ = mixer.sizes(spec.encoder.hidden_size)
    ours, theirs = "encoder.layers.{i}.", prefix + "layers.{i}."
    out_bias = mixer.bias if mixer.out_bias is None else mixer.out_bias
    rules: list[Rule] = [
        Rename("encoder.embedding.tokens.weight", f"{prefix}embed_tokens.weight"),
        *affine(ours + "mixer.out", theirs + "self_attn.o_proj", out_bias),
        *affine(ours + "mlp.down", theirs + "mlp.down_proj", mlp.bias),
        Rename(ours + "mixer_norm.weight", theirs + "input_layernorm.weight"),
        Rename(ours + "mlp_norm.weight", theirs + "post_attention_layernorm.weight"),
        Rename("encoder.final_norm.weight", f"{prefix}norm.weight"),
        Drop(theirs + "self_attn.rotary_emb.inv_freq"),
    ]
    if mixer.qk_norm is not None:
        rules += [Rename(f"{ours}mixer.{name}.weight", f"{theirs}self_attn.{name}.weight") for name in ("q_norm", "k_norm")]
    for part in ("weight", "bias"):
        if part == "weight" or mixer.bias:
            separate = tuple(f"{theirs}self_attn.{name}_proj.{part}" for name in "qkv")
            rules.append(Fuse(f"{ours}mixer.qkv.{part}", separate, (heads, kv_heads, kv_heads)))
        if part == "weight" or mlp.bias:
            rules.append(Fuse(f"{ours}mlp.up.{part}", tuple(f"{theirs}mlp.{name}_proj.{part}" for name in ("gate", "up"))))
    return rules
