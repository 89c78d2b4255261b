"""ERNIE-Gram's encoder restated from its released code (PaddlePaddle/ERNIE, `repro`), under BERT's names.

Independent of our code on purpose: padded rows, and buckets looked up in a list of where each begins.
"""

from __future__ import annotations

from bisect import bisect_right
from types import SimpleNamespace
from typing import Any

import torch
from tests.references.reference import BERT_SHAPE, LABELS, Case, Reference
from tests.references.restated import Restated, TiedPredictions, attend
from torch import Tensor, nn

# 32 buckets, half of them for each direction: where each of the sixteen begins, up to 128
BEGINS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91)
ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}


def released_bucket(query: int, key: int) -> int:
    """A query's first token has bucket 16 for all keys; a key's first token has bucket 32."""
    if query == 0:
        return 16
    if key == 0:
        return 32
    return (16 if key < query else 0) + bisect_right(BEGINS, abs(key - query)) - 1


class _Attention(nn.Module):
    def __init__(self, size: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.self = nn.ModuleDict({name: nn.Linear(size, size) for name in ("query", "key", "value")})
        self.output = nn.ModuleDict({"dense": nn.Linear(size, size), "LayerNorm": nn.LayerNorm(size, eps)})

    def forward(self, x: Tensor, bias: Tensor, seen: Tensor) -> Tensor:
        parts = self.self["query"](x), self.self["key"](x), self.self["value"](x)
        return self.output["LayerNorm"](x + self.output["dense"](attend(parts, self.heads, bias, seen)))


class _Layer(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size, inner, eps = config["hidden_size"], config["intermediate_size"], config["layer_norm_eps"]
        self.attention = _Attention(size, config["num_attention_heads"], eps)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(size, inner)})
        self.output = nn.ModuleDict({"dense": nn.Linear(inner, size), "LayerNorm": nn.LayerNorm(size, eps)})
        self.act = ACTIVATIONS[config["hidden_act"]]()

    def forward(self, x: Tensor, bias: Tensor, seen: Tensor) -> Tensor:
        x = self.attention(x, bias, seen)
        return self.output["LayerNorm"](x + self.output["dense"](self.act(self.intermediate["dense"](x))))


class _Embeddings(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], size)
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], size)
        self.LayerNorm = nn.LayerNorm(size, config["layer_norm_eps"])

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.LayerNorm(self.word_embeddings(input_ids) + self.position_embeddings.weight[: input_ids.shape[1]])


class ErnieGram(Restated):
    """The bare model."""

    def __init__(self, config: dict[str, Any], pooled: bool = True) -> None:
        super().__init__(config)
        size = config["hidden_size"]
        self.embeddings = _Embeddings(config)
        layers = nn.ModuleList(_Layer(config) for _ in range(config["num_hidden_layers"]))
        table = nn.Embedding(33, config["num_attention_heads"])
        self.encoder = nn.ModuleDict({"layer": layers, "relative_attention_bias": table})
        if pooled:
            self.pooler = nn.ModuleDict({"dense": nn.Linear(size, size)})

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        length = range(input_ids.shape[1])
        buckets = torch.tensor([[released_bucket(query, key) for key in length] for query in length])
        bias = self.encoder["relative_attention_bias"](buckets).permute(2, 0, 1)[None]
        x = self.embeddings(input_ids)
        for layer in self.encoder["layer"].children():
            x = layer(x, bias, attention_mask.bool())
        pooled = torch.tanh(self.pooler["dense"](x[:, 0])) if hasattr(self, "pooler") else None
        return SimpleNamespace(last_hidden_state=x, pooler_output=pooled)


class _WithHead(Restated):
    pooled = False

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.ernie_gram = ErnieGram(config, pooled=self.pooled)

    @property
    def base_model(self) -> nn.Module:
        return self.ernie_gram


class ErnieGramMaskedLm(_WithHead):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        activation = ACTIVATIONS[config["hidden_act"]]()
        predictions = TiedPredictions(config["hidden_size"], config["vocab_size"], activation, config["layer_norm_eps"])
        self.cls = nn.ModuleDict({"predictions": predictions})

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        hidden = self.ernie_gram(input_ids, attention_mask).last_hidden_state
        return SimpleNamespace(logits=self.cls["predictions"](hidden, self.ernie_gram.embeddings.word_embeddings.weight))


class ErnieGramClassifier(_WithHead):
    pooled = True

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config["hidden_size"], config["num_labels"])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.classifier(self.ernie_gram(input_ids, attention_mask).pooler_output))


REFERENCES = {
    "ernie_gram": Reference(
        {
            **BERT_SHAPE,
            "layer_norm_eps": 1e-5,
            "hidden_act": "gelu",
            "model_type": "ernie_gram",
            "num_labels": LABELS,
        },
        classes={"bare": ErnieGram, "masked_lm": ErnieGramMaskedLm, "classifier": ErnieGramClassifier},
    )
}
CASES = (
    *(Case("ernie_gram", head) for head in ("bare", "masked_lm", "classifier")),
    Case("ernie_gram", "masked_lm", {"hidden_act": "relu", "layer_norm_eps": 1e-12}, "relu"),
)
