from __future__ import annotations

from tests.builders import WINDOW
from tests.references.reference import BERT_SHAPE, Case, Reference
from tests.references.scaled import SCALED

REFERENCES = {
    "modernbert": Reference(
        {
            **BERT_SHAPE,
            "local_attention": 2 * WINDOW,
            # the defaults lie outside this vocabulary
            **{f"{name}_token_id": i for i, name in enumerate(("pad", "bos", "eos", "cls", "sep"))},
        },
        layers="layers",
    )
}
_BIASES = {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True, "decoder_bias": False}
_LAYER_TYPES = [("sliding_attention", "full_attention")[kind] for kind in (0, 1, 1, 0, 0)]
_THETAS = {"full_attention": 3e3, "sliding_attention": 50.0}
_EQUAL = {kind: {"rope_type": "default", "rope_theta": 160_000.0} for kind in _THETAS}
_SCALED = {"full_attention": SCALED["yarn"], "sliding_attention": SCALED["linear"]}
_ONE_SCALING = {kind: {**SCALED["yarn-factor"], "rope_theta": theta} for kind, theta in _THETAS.items()}
_ROPE = {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in _THETAS.items()}
CASES = (
    *(Case("modernbert", head) for head in ("bare", "masked_lm", "classifier")),
    Case("modernbert", "classifier", {"classifier_pooling": "mean", **_BIASES}, "mean-biases"),
    Case("modernbert", "masked_lm", _BIASES, "biases"),
    Case("modernbert", "masked_lm", {"tie_word_embeddings": False}, "untied"),
    Case("modernbert", "masked_lm", {"layer_types": _LAYER_TYPES, "rope_parameters": _ROPE}, "types-thetas"),
    # as in Ettin
    Case("modernbert", "masked_lm", {"rope_parameters": _EQUAL}, "equal-thetas"),
    Case("modernbert", "bare", {"rope_parameters": _ROPE}, "thetas"),
    Case("modernbert", "bare", {"rope_parameters": _SCALED}, "scaled"),
    Case("modernbert", "bare", {"rope_parameters": _ONE_SCALING}, "one-scaling"),
    Case("modernbert", "bare", {"rope_parameters": {**_ROPE, "full_attention": SCALED["llama3"]}}, "llama3"),
)
