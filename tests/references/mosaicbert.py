"""MosaicBERT restated from its paper (arXiv 2312.17482) and the names of its released weights.

Independent of our code on purpose: padded rows, slopes by the recursion of ALiBi's authors, and the
bias written out for every pair of places.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from tests.builders import LONGEST
from tests.references.reference import LABELS, SHAPE, Case, Reference
from tests.references.restated import Restated, TiedPredictions, attend
from torch import Tensor, nn


def slopes(heads: int) -> list[float]:
    """Geometric for a power of two; else those of the next lower one, then every other of twice as many."""
    lower = 2 ** (heads.bit_length() - 1)
    if heads == lower:
        start = 2 ** (-8 / heads)
        return [start * start**i for i in range(heads)]
    return slopes(lower) + slopes(2 * lower)[::2][: heads - lower]


class _Attention(nn.Module):
    def __init__(self, size: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.self = nn.ModuleDict({"Wqkv": nn.Linear(size, 3 * size)})
        self.output = nn.ModuleDict({"dense": nn.Linear(size, size), "LayerNorm": nn.LayerNorm(size, eps)})

    def forward(self, x: Tensor, bias: Tensor, seen: Tensor) -> Tensor:
        q, k, v = self.self["Wqkv"](x).chunk(3, dim=-1)
        return self.output["LayerNorm"](x + self.output["dense"](attend((q, k, v), self.heads, bias, seen)))


class _Mlp(nn.Module):
    def __init__(self, size: int, inner: int, eps: float) -> None:
        super().__init__()
        self.inner = inner
        self.gated_layers = nn.Linear(size, 2 * inner, bias=False)
        self.wo = nn.Linear(inner, size)
        self.layernorm = nn.LayerNorm(size, eps)

    def forward(self, x: Tensor) -> Tensor:
        both = self.gated_layers(x)
        return self.layernorm(x + self.wo(F.gelu(both[..., : self.inner]) * both[..., self.inner :]))


class _Layer(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size, eps = config["hidden_size"], config["layer_norm_eps"]
        self.attention = _Attention(size, config["num_attention_heads"], eps)
        self.mlp = _Mlp(size, config["intermediate_size"], eps)

    def forward(self, x: Tensor, bias: Tensor, seen: Tensor) -> Tensor:
        return self.mlp(self.attention(x, bias, seen))


class _Embeddings(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], size)
        self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], size)
        self.LayerNorm = nn.LayerNorm(size, config["layer_norm_eps"])

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        return self.LayerNorm(self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids))


class MosaicBert(Restated):
    """The bare model, under the released names."""

    def __init__(self, config: dict[str, Any], pooled: bool = True) -> None:
        super().__init__(config)
        size = config["hidden_size"]
        self.embeddings = _Embeddings(config)
        layers = nn.ModuleList(_Layer(config) for _ in range(config["num_hidden_layers"]))
        self.encoder = nn.ModuleDict({"layer": layers})
        if pooled:
            self.pooler = nn.ModuleDict({"dense": nn.Linear(size, size)})

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> SimpleNamespace:
        length = range(input_ids.shape[1])
        apart = torch.tensor([[abs(query - key) for key in length] for query in length])
        bias = torch.stack([-slope * apart for slope in slopes(self.config["num_attention_heads"])])[None]
        x = self.embeddings(input_ids, token_type_ids)
        for layer in self.encoder["layer"].children():
            x = layer(x, bias, attention_mask.bool())
        pooled = torch.tanh(self.pooler["dense"](x[:, 0])) if hasattr(self, "pooler") else None
        return SimpleNamespace(last_hidden_state=x, pooler_output=pooled)


class _WithHead(Restated):
    pooled = False

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.bert = MosaicBert(config, pooled=self.pooled)

    @property
    def base_model(self) -> nn.Module:
        return self.bert


class _Predictions(TiedPredictions):
    """Its bias is the decoder's."""

    def __init__(self, config: dict[str, Any]) -> None:
        activation = nn.ReLU() if config["hidden_act"] == "relu" else nn.GELU()
        super().__init__(config["hidden_size"], config["vocab_size"], activation, 1e-12)
        del self.bias
        self.decoder = nn.ParameterDict({"bias": torch.zeros(config["vocab_size"])})

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return self.transform["LayerNorm"](self.activation(self.transform["dense"](x))) @ table.T + self.decoder["bias"]


class MosaicBertMaskedLm(_WithHead):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.cls = nn.ModuleDict({"predictions": _Predictions(config)})

    def forward(self, **given: Tensor) -> SimpleNamespace:
        hidden = self.bert(**given).last_hidden_state
        return SimpleNamespace(logits=self.cls["predictions"](hidden, self.bert.embeddings.word_embeddings.weight))


class MosaicBertClassifier(_WithHead):
    pooled = True

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config["hidden_size"], config["num_labels"])

    def forward(self, **given: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.classifier(self.bert(**given).pooler_output))


REFERENCES = {
    "mosaicbert": Reference(
        {
            **SHAPE,
            "intermediate_size": 20,
            "alibi_starting_size": LONGEST,
            "max_position_embeddings": 512,
            "position_embedding_type": "absolute",
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
            "hidden_act": "gelu",
            "model_type": "bert",
            "num_labels": LABELS,
        },
        types=2,
        classes={"bare": MosaicBert, "masked_lm": MosaicBertMaskedLm, "classifier": MosaicBertClassifier},
    )
}
CASES = (
    *(Case("mosaicbert", head) for head in ("bare", "masked_lm", "classifier")),
    # the layers' activation and the head's eps are fixed, whatever these say
    Case("mosaicbert", "masked_lm", {"hidden_act": "relu", "layer_norm_eps": 1e-5}, "relu-head"),
    Case("mosaicbert", "masked_lm", {"num_attention_heads": 6}, "six-heads"),
)
