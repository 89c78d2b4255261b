from __future__ import annotations

from tests.builders import HEADS, INNER, LAYERS, LONGEST, SIZE, VOCAB
from tests.references.reference import Case, Reference

REFERENCES = {
    "distilbert": Reference(
        {
            "vocab_size": VOCAB,
            "dim": SIZE,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "hidden_dim": INNER,
            "max_position_embeddings": LONGEST,
        },
        layers="transformer.layer",
    )
}
CASES = (
    *(Case("distilbert", head) for head in ("bare", "masked_lm", "classifier")),
    Case("distilbert", "masked_lm", {"sinusoidal_pos_embds": True}, "sinusoidal"),
    Case("distilbert", "masked_lm", {"activation": "relu"}, "relu"),
    Case("distilbert", "classifier", {"activation": "gelu_new"}, "tanh-gelu"),
)
