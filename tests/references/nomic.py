from __future__ import annotations

from tests.references.reference import BERT_SHAPE, Case, Reference

REFERENCES = {"nomic_bert": Reference(BERT_SHAPE, layers="layers", types=2)}
_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}}
CASES = (
    *(Case("nomic_bert", head) for head in ("bare", "masked_lm", "classifier")),
    Case("nomic_bert", "masked_lm", {"hidden_act": "gelu", "head_dim": 10, "layer_norm_eps": 1e-5, **_ROPE}, "wide-heads"),
)
