"""Llama, Mistral, Qwen2 and Qwen3: causal as published, and both ways as `is_causal: false` has them."""

from __future__ import annotations

from tests.builders import WINDOW
from tests.references.reference import BERT_SHAPE, Case, Reference
from tests.references.scaled import SCALED

_REFERENCE = Reference(
    {**BERT_SHAPE, "num_key_value_heads": 1, "rms_norm_eps": 1e-3, "pad_token_id": 0}, embedding="embed_tokens", layers="layers"
)
_WINDOWED = Reference({**_REFERENCE.settings, "sliding_window": WINDOW}, embedding="embed_tokens", layers="layers")
_WIDE = Reference({**_REFERENCE.settings, "head_dim": 10}, embedding="embed_tokens", layers="layers")
REFERENCES = {"llama": _REFERENCE, "mistral": _WINDOWED, "qwen2": _REFERENCE, "qwen3": _WIDE}
_BOTH_WAYS = {"is_causal": False}
CASES = (
    *(Case(family, head) for family in REFERENCES for head in ("bare", "causal_lm")),
    *(Case(family, "causal_lm", _BOTH_WAYS, "both-ways") for family in REFERENCES),
    Case("llama", "causal_lm", {"tie_word_embeddings": True}, "tied"),
    Case("llama", "causal_lm", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": None}, "biases"),
    Case("llama", "bare", {"head_dim": 10, "hidden_act": "gelu", "num_key_value_heads": 3}, "wide-gelu"),
    Case("qwen3", "bare", {"attention_bias": True, "head_dim": 8}, "biases"),
    Case("mistral", "bare", {"sliding_window": None, "num_key_value_heads": 3}, "no-window"),
    *(Case("llama", "bare", {"rope_parameters": SCALED[name]}, f"{name}-causal") for name in ("linear", "llama3", "yarn-mscale")),
    *(Case("llama", "bare", {"rope_parameters": parameters, **_BOTH_WAYS}, name) for name, parameters in SCALED.items()),
)
