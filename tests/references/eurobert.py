from __future__ import annotations

from tests.references.reference import BERT_SHAPE, Case, Reference
from tests.references.scaled import SCALED

REFERENCES = {
    "eurobert": Reference(
        {
            **BERT_SHAPE,
            "num_key_value_heads": 1,
            "rms_norm_eps": 1e-3,
            # the defaults lie outside this vocabulary
            **{f"{name}_token_id": i for i, name in enumerate(("pad", "bos", "eos", "mask"))},
        },
        embedding="embed_tokens",
        layers="layers",
    )
}
_BIASES = {"attention_bias": True, "mlp_bias": True}
CASES = (
    Case("eurobert", "bare"),
    Case("eurobert", "masked_lm"),
    Case("eurobert", "masked_lm", {"num_key_value_heads": 3, "head_dim": 10, **_BIASES}, "wide-biases"),
    Case("eurobert", "masked_lm", {"num_attention_heads": 4, "num_key_value_heads": 2}, "groups"),
    Case("eurobert", "masked_lm", {"hidden_act": "gelu", "rope_parameters": {"rope_theta": 50.0}}, "gelu-theta"),
    *(Case("eurobert", "classifier", {"classifier_pooling": pooling}, pooling) for pooling in ("late", "mean", "bos")),
    *(Case("eurobert", "masked_lm", {"rope_parameters": SCALED[name]}, name) for name in ("yarn", "linear")),
)
