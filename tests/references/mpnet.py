from __future__ import annotations

from tests.builders import LONGEST
from tests.references.reference import BERT_SHAPE, Case, Reference

REFERENCES = {
    "mpnet": Reference({**BERT_SHAPE, "max_position_embeddings": LONGEST + 2, "layer_norm_eps": 1e-5}, pad_id=1, sdpa=False)
}
CASES = (
    *(Case("mpnet", head) for head in ("bare", "masked_lm", "classifier")),
    Case("mpnet", "masked_lm", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-12}, "tanh-gelu"),
)
