from __future__ import annotations

from tests.references.reference import BERT_SHAPE, Case, Reference

REFERENCES = {
    "albert": Reference(
        {**BERT_SHAPE, "embedding_size": 9},
        embedding="encoder.embedding_hidden_mapping_in",
        layers="encoder.albert_layer_groups.*.albert_layers",
        types=2,
    )
}
_GROUPS = {"num_hidden_groups": 2, "inner_group_num": 2}
CASES = (
    *(Case("albert", head) for head in ("bare", "masked_lm", "pretraining", "classifier")),
    # five times two layers, of which the first three and the last two pairs are one
    *(Case("albert", head, _GROUPS, "groups") for head in ("bare", "pretraining")),
    Case("albert", "masked_lm", {"num_hidden_groups": 1, "inner_group_num": 2}, "one-group-of-two"),
    Case("albert", "masked_lm", {"num_hidden_groups": 3, "hidden_act": "relu", "layer_norm_eps": 1e-2}, "three-groups-relu"),
    Case("albert", "masked_lm", {"embedding_size": 24, "type_vocab_size": 3, "hidden_act": "gelu"}, "equal-sizes"),
)
