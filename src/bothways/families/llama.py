"""Llama (arXiv 2302.13971, 2407.21783), Mistral (2310.06825), Qwen2 (2407.10671), Qwen3 (2505.09388): decoders, read as encoders.

A token sees none after it, unless the config says `is_causal: false`, which `transformers` 5 honours.
`bothways.model.extension.bidirectional` makes such a model of a published one. The vocabulary on top is our `masked_lm`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from bothways.encoder.config import EncoderConfig, Layer
from bothways.families.convert import Reader, Rename, Rule, Tied
from bothways.families.decoder import DECODER_INERT, decoder, decoder_rules, read_decoder, write_decoder
from bothways.families.family import Family, Heads, Spec, attention_of, mlp_of
from bothways.layers.heads import MaskedLmHead
from bothways.layers.position import Rotary
from bothways.layers.scaling import Llama3

_LONG = Rotary(theta=500_000.0, scaling=Llama3(factor=32.0, original_length=8192))


def llama(
    vocab_size: int = 128256,
    hidden_size: int = 2048,
    num_layers: int = 16,
    heads: int = 32,
    kv_heads: int | None = 8,
    intermediate_size: int = 8192,
    max_length: int = 131_072,
    position: Rotary = _LONG,
    causal: bool = True,
    eps: float = 1e-5,
) -> EncoderConfig:
    """A Llama; the defaults are Llama-3.2-1B, which is causal."""
    return decoder(
        vocab_size, hidden_size, num_layers, heads, kv_heads, intermediate_size, max_length, position, causal=causal, eps=eps
    )


_PLAIN, _MILLION = Rotary(theta=10_000.0), Rotary(theta=1_000_000.0)
_LONGER = Rotary(theta=500_000.0, scaling=Llama3(factor=8.0, original_length=8192))
_qwen2 = partial(decoder, causal=True, bias=True, out_bias=False, eps=1e-6)
_qwen3 = partial(decoder, causal=True, qk_norm=True, head_size=128, eps=1e-6)
SIZES = {
    "llama-2-7b": llama(32000, 4096, 32, 32, None, 11008, 4096, _PLAIN),
    "llama-3-8b": llama(128256, 4096, 32, 32, 8, 14336, 8192, Rotary(theta=500_000.0)),
    "llama-3.1-8b": llama(128256, 4096, 32, 32, 8, 14336, 131_072, _LONGER),
    "llama-3.2-1b": llama(),
    "llama-3.2-3b": llama(128256, 3072, 28, 24, 8, 8192),
    # a token sees 4096, itself among them
    "mistral-7b": decoder(32000, 4096, 32, 32, 8, 14336, 32768, _PLAIN, causal=True, window=4095),
    "qwen2.5-0.5b": _qwen2(151936, 896, 24, 14, 2, 4864, 32768, _MILLION),
    "qwen2.5-1.5b": _qwen2(151936, 1536, 28, 12, 2, 8960, 131_072, _MILLION),
    "qwen3-0.6b": _qwen3(151936, 1024, 28, 16, 8, 3072, 40960, _MILLION),
}


def _llama(reader: Reader) -> EncoderConfig:
    bias, causal = reader.get("attention_bias", False), reader.get("is_causal", True)
    return read_decoder(reader, 2048, 1e-6, bias, bias, reader.get("mlp_bias", False), causal=causal)


def _mistral(reader: Reader) -> EncoderConfig:
    causal = reader.get("is_causal", True)
    # a null says that there is no window, an absent key that it is the default one
    size = reader.get("sliding_window", 0) if "sliding_window" in reader.data else 4096
    window = size - 1 if size and causal else size or None
    return read_decoder(reader, 131_072, 1e-6, False, False, False, kv_heads=8, causal=causal, window=window)


def _qwen2_encoder(reader: Reader) -> EncoderConfig:
    _refuse_windows(reader)
    return read_decoder(reader, 32768, 1e-6, True, False, False, kv_heads=32, causal=reader.get("is_causal", True))


def _qwen3_encoder(reader: Reader) -> EncoderConfig:
    _refuse_windows(reader)
    bias, causal = reader.get("attention_bias", False), reader.get("is_causal", True)
    return read_decoder(reader, 32768, 1e-6, bias, bias, False, kv_heads=32, causal=causal, head_size=128, qk_norm=True)


def _refuse_windows(reader: Reader) -> None:
    reader.only("use_sliding_window", False)
    if set(reader.get("layer_types", [])) - {"full_attention"}:
        reader.only("layer_types", None)


def _read(encoder: Callable[[Reader], EncoderConfig], reader: Reader, heads: Collection[str]) -> Spec:
    tied = reader.get("tie_word_embeddings", False)
    # a tied vocabulary has no weight of its own: that the body has its prefix shows it
    present = "masked_lm" in heads or (tied and "tied" in heads)
    return Spec(
        encoder=encoder(reader),
        heads=Heads(masked_lm=MaskedLmHead(transform=None, tied=tied, bias=False) if present else None),
        pad_id=reader.get("pad_token_id", 0),
    )


def _write(name: str, said: Callable[[Layer], dict[str, Any]], spec: Spec) -> dict[str, Any]:
    layer, head = spec.encoder.layer(0), spec.heads.masked_lm
    return {
        **write_decoder(spec, name),
        "is_causal": attention_of(layer).causal,
        # without a head, what the file said stays
        **({"tie_word_embeddings": head.tied} if head else {}),
        **said(layer),
    }


def _biases(layer: Layer) -> dict[str, Any]:
    return {"attention_bias": attention_of(layer).bias, "mlp_bias": mlp_of(layer).bias}


def _windows(layer: Layer) -> dict[str, Any]:
    mixer = attention_of(layer)
    return {"sliding_window": None if mixer.window is None else mixer.window + mixer.causal}


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    rules, head = decoder_rules(spec, prefix), spec.heads.masked_lm
    if head:
        tied = Tied("lm_head.weight", f"{prefix}embed_tokens.weight")
        rules.append(tied if head.tied else Rename("heads.masked_lm.decoder.weight", "lm_head.weight"))
    return rules


def _family(
    name: str,
    title: str,
    encoder: Callable[[Reader], EncoderConfig],
    said: Callable[[Layer], dict[str, Any]],
    inert: tuple[str, ...] = (),
) -> Family:
    return Family(
        name=name,
        inert=(*DECODER_INERT, *inert),
        marks={"masked_lm": "lm_head.weight", "tied": "model.embed_tokens.weight"},
        prefix="model.",
        read=partial(_read, encoder),
        write=partial(_write, name, said),
        architecture=lambda heads: f"{title}ForCausalLM" if "masked_lm" in heads else f"{title}Model",
        rules=_rules,
    )


FAMILY = _family("llama", "Llama", _llama, _biases)
MISTRAL_FAMILY = _family("mistral", "Mistral", _mistral, _windows)
QWEN2_FAMILY = _family(
    "qwen2", "Qwen2", _qwen2_encoder, lambda layer: {"use_sliding_window": False}, ("sliding_window", "max_window_layers")
)
QWEN3_FAMILY = _family(
    "qwen3",
    "Qwen3",
    _qwen3_encoder,
    lambda layer: {"use_sliding_window": False, "attention_bias": attention_of(layer).bias},
    ("sliding_window", "max_window_layers"),
)
