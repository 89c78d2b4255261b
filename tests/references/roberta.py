from __future__ import annotations

from tests.builders import LONGEST
from tests.references.reference import BERT_SHAPE, Case, Reference

_REFERENCE = Reference(
    {**BERT_SHAPE, "max_position_embeddings": LONGEST + 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5}, pad_id=1
)
REFERENCES = dict.fromkeys(("roberta", "xlm-roberta", "camembert"), _REFERENCE)
CASES = tuple(Case(family, head) for family in REFERENCES for head in ("bare", "masked_lm", "classifier"))
