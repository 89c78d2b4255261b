from __future__ import annotations

from tests.builders import SIZE
from tests.references.reference import BERT_SHAPE, Case, Reference

REFERENCES = {"electra": Reference({**BERT_SHAPE, "embedding_size": 9}, embedding="embeddings_project|embeddings", types=2)}
_OTHER = {"hidden_act": "relu", "layer_norm_eps": 1e-2}
CASES = (
    *(Case("electra", head) for head in ("bare", "masked_lm", "replaced_token", "classifier")),
    *(Case("electra", head, {"embedding_size": SIZE}, "equal-sizes") for head in ("masked_lm", "replaced_token")),
    *(Case("electra", head, _OTHER, "relu") for head in ("masked_lm", "replaced_token", "classifier")),
)
