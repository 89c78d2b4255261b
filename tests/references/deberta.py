from __future__ import annotations

from typing import Any

from tests.references.reference import BERT_SHAPE, Case, Reference

# theirs have no SDPA; a convolution, where there is one, follows the first layer
REFERENCES = {
    "deberta": Reference({**BERT_SHAPE, "relative_attention": True, "pos_att_type": "c2p|p2c"}, types=2, sdpa=False),
    "deberta-v2": Reference(
        {**BERT_SHAPE, "relative_attention": True, "pos_att_type": "p2c|c2p"}, types=2, sdpa=False, after={1: "encoder.conv"}
    ),
}
_PUBLISHED: dict[str, Any] = {
    "position_buckets": 16,
    "max_relative_positions": 60,  # fewer than the longest sequence has
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_biased_input": False,
}
_ALONE: dict[str, Any] = {"relative_attention": False, "pos_att_type": None, "type_vocab_size": 2}
_CONVOLUTION = {"conv_kernel_size": 3, "conv_act": "gelu"}
_SUBSETS: dict[str, Any] = {"c2p": ["c2p"], "p2c": ["p2c"], "neither": None}
CASES = (
    *(Case("deberta", head, {"position_biased_input": False}) for head in ("bare", "masked_lm", "classifier")),
    *(Case("deberta", "bare", {"pos_att_type": terms}, name) for name, terms in _SUBSETS.items()),
    Case("deberta", "masked_lm", {"legacy": False, "max_relative_positions": 20, "type_vocab_size": 2}, "short-types"),
    Case("deberta", "bare", _ALONE, "absolute"),
    *(Case("deberta-v2", head, _PUBLISHED) for head in ("bare", "masked_lm", "classifier")),
    *(Case("deberta-v2", "bare", {**_PUBLISHED, "pos_att_type": terms}, f"shared-{name}") for name, terms in _SUBSETS.items()),
    *(
        Case("deberta-v2", "bare", {**_PUBLISHED, "share_att_key": False, "pos_att_type": terms}, f"own-{name}")
        for name, terms in {**_SUBSETS, "both": "c2p|p2c"}.items()
    ),
    Case("deberta-v2", "masked_lm", {**_PUBLISHED, **_CONVOLUTION, "legacy": False}, "convolution"),
    Case("deberta-v2", "bare", {**_PUBLISHED, "conv_kernel_size": 5, "conv_groups": 3}, "groups"),
    Case("deberta-v2", "classifier", {"pooler_hidden_act": "relu", "type_vocab_size": 2}, "no-buckets"),
    Case("deberta-v2", "bare", {**_ALONE, **_CONVOLUTION}, "absolute"),
)
