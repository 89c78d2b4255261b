"""Published configs of Llama-shaped families give the published sizes, with no key left over."""

from __future__ import annotations

from typing import Any

import pytest

from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError
from bothways.families import eurobert, llama
from bothways.families.convert import Reader
from bothways.families.family import Family, Spec

_EUROBERT = {
    "architectures": ["EuroBertForMaskedLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token": "<|begin_of_text|>",
    "bos_token_id": 128000, "eos_token": "<|end_of_text|>", "eos_token_id": 128001, "pad_token": "<|end_of_text|>",
    "pad_token_id": 128001, "mask_token": "<|mask|>", "mask_token_id": 128002, "hidden_act": "silu", "hidden_dropout": 0.0,
    "initializer_range": 0.02, "max_position_embeddings": 8192, "model_type": "eurobert", "pretraining_tp": 1,
    "is_decoder": False,
    "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 250000, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "transformers_version": "4.40.0.dev0", "vocab_size": 128256,
}  # fmt: skip
_SMALL = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "num_key_value_heads": 12,
}
_BIG = {
    "hidden_size": 2304,
    "intermediate_size": 6144,
    "num_attention_heads": 18,
    "num_hidden_layers": 32,
    "num_key_value_heads": 6,
}
_NESTED = {"rope_type": "llama3", "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0}
_LLAMA = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000,
    "head_dim": 64,
    "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
    "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "llama", "num_attention_heads": 32,
    "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0, "tie_word_embeddings": True,
    "rope_scaling": {**_NESTED, "original_max_position_embeddings": 8192}, "torch_dtype": "bfloat16", "use_cache": True,
    "transformers_version": "4.45.0.dev0", "vocab_size": 128256,
}  # fmt: skip
_MISTRAL = {
    "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096,
    "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
    "sliding_window": 4096, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": 32000,
}  # fmt: skip
_QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643,
    "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True, "use_cache": True,
    "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip


def read(family: Family, data: dict[str, Any], *heads: str) -> Spec:
    return family.read(Reader(data, "config.json"), heads)


@pytest.mark.parametrize(
    ("family", "data", "size"),
    [
        (eurobert.FAMILY, {**_EUROBERT, **_SMALL}, eurobert.SIZES["210m"]),
        (eurobert.FAMILY, {**_EUROBERT, **_BIG}, eurobert.SIZES["2.1b"]),
        (llama.FAMILY, _LLAMA, llama.SIZES["llama-3.2-1b"]),
        (llama.MISTRAL_FAMILY, _MISTRAL, llama.SIZES["mistral-7b"]),
        (llama.QWEN2_FAMILY, _QWEN2, llama.SIZES["qwen2.5-0.5b"]),
    ],
    ids=["eurobert-210m", "eurobert-2.1b", "llama-3.2-1b", "mistral-7b-v0.1", "qwen2.5-0.5b"],
)
def test_published_configs(family: Family, data: dict[str, Any], size: EncoderConfig) -> None:
    reader = Reader(data, "config.json")
    assert family.read(reader, ()).encoder == size
    assert reader.unknown(family.inert) == []


@pytest.mark.parametrize(
    ("tied", "marks", "there"), [(True, ["tied"], True), (False, ["tied"], False), (False, ["masked_lm"], True)]
)
def test_a_tied_vocabulary_is_there_without_a_weight(tied: bool, marks: list[str], there: bool) -> None:
    head = read(llama.FAMILY, {**_LLAMA, "tie_word_embeddings": tied}, *marks).heads.masked_lm
    assert (head is not None) == there
    assert head is None or head.tied == tied


@pytest.mark.parametrize(("said", "window"), [({"sliding_window": None}, None), ({}, 4095), ({"is_causal": False}, 4096)])
def test_windows_of_mistral(said: dict[str, Any], window: int | None) -> None:
    data = {key: value for key, value in _MISTRAL.items() if key != "sliding_window"}
    assert read(llama.MISTRAL_FAMILY, {**data, **said}).encoder.layer(0).mixer.window == window


@pytest.mark.parametrize(
    ("said", "pooling"),
    [({}, "late"), ({"clf_pooling": "mean"}, "mean"), ({"clf_pooling": "mean", "classifier_pooling": "bos"}, "cls")],
)
def test_poolings_of_eurobert(said: dict[str, Any], pooling: str) -> None:
    head = read(eurobert.FAMILY, {**_EUROBERT, **_SMALL, **said}, "classifier").heads.classifier
    assert head is not None
    assert head.pooling == pooling


@pytest.mark.parametrize(
    ("family", "data", "message"),
    [
        (eurobert.FAMILY, {**_EUROBERT, **_SMALL, "tie_word_embeddings": True}, "tie_word_embeddings=True is not supported"),
        (eurobert.FAMILY, {**_EUROBERT, **_SMALL, "classifier_pooling": "max"}, "classifier_pooling='max' is not supported"),
        (llama.FAMILY, {**_LLAMA, "hidden_act": "relu6"}, "hidden_act='relu6' is not supported"),
        (llama.FAMILY, {key: value for key, value in _LLAMA.items() if key != "hidden_size"}, "no 'hidden_size'"),
        (llama.QWEN2_FAMILY, {**_QWEN2, "use_sliding_window": True}, "use_sliding_window=True is not supported"),
        (llama.QWEN2_FAMILY, {**_QWEN2, "layer_types": ["sliding_attention"]}, "layer_types=.* is not supported"),
    ],
)
def test_what_is_refused(family: Family, data: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(family, data)
