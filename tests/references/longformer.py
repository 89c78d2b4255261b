from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch.nn.functional as F
from tests.builders import LONGEST, WINDOW
from tests.references.reference import BERT_SHAPE, Case, Reference
from torch import Tensor

_softmax = F.softmax


def _as_exact_as_given(x: Tensor, *args: Any, dtype: object = None, **options: Any) -> Tensor:
    return _softmax(x, *args, **options)


def exact() -> Any:
    """Their softmax is in float32 whatever the weights are; there a float64 mask is infinite, and padding has no gradient."""
    return patch.object(F, "softmax", _as_exact_as_given)


REFERENCES = {
    "longformer": Reference(
        {
            **BERT_SHAPE,
            "max_position_embeddings": LONGEST + 2,
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-5,
            "attention_window": 2 * WINDOW,
        },
        pad_id=1,
        sdpa=False,
        within=exact,
    )
}
# their class pads to the widest, which the others must divide; no sequence is a multiple of it
_WINDOWS = {"attention_window": [4, 8, 20, 4, 40]}
CASES = (
    *(Case("longformer", head) for head in ("bare", "masked_lm", "classifier")),
    *(Case("longformer", head, note="globals", global_tokens=True) for head in ("bare", "masked_lm", "classifier")),
    Case("longformer", "masked_lm", _WINDOWS, "windows", global_tokens=True),
    Case("longformer", "masked_lm", {"hidden_act": "relu", "type_vocab_size": 2}, "relu"),
)
