from __future__ import annotations

from tests.references.reference import BERT_SHAPE, Case, Reference

REFERENCES = {"bert": Reference(BERT_SHAPE, types=2)}
CASES = (
    *(Case("bert", head) for head in ("bare", "masked_lm", "pretraining", "classifier")),
    Case("bert", "masked_lm", {"hidden_act": "gelu_new"}, "tanh-gelu"),
    Case("bert", "masked_lm", {"hidden_act": "relu"}, "relu"),
)
