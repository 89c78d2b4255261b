"""NeoBERT restated from its paper (arXiv 2502.19587) and the names of its released weights.

Independent of our code on purpose: padded rows and a mask, the rotation as a product of complex
numbers over neighbouring features, and `qkv` cut head by head.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tests.builders import LONGEST
from tests.references.reference import LABELS, SHAPE, Case, Reference
from torch import Tensor, nn


class _FeedForward(nn.Module):
    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(size, 2 * inner, bias=False)
        self.w3 = nn.Linear(inner, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.w12(x).tensor_split(2, dim=-1)
        return self.w3(F.silu(first) * second)


class _Block(nn.Module):
    def __init__(self, size: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(size, 3 * size, bias=False)
        self.wo = nn.Linear(size, size, bias=False)
        self.ffn = _FeedForward(size, inner)
        self.attention_norm = nn.RMSNorm(size, eps)
        self.ffn_norm = nn.RMSNorm(size, eps)

    def forward(self, x: Tensor, turns: Tensor, seen: Tensor) -> Tensor:
        rows, length, size = x.shape
        per_head = self.qkv(self.attention_norm(x)).view(rows, length, self.heads, 3 * size // self.heads)
        q, k, v = per_head.chunk(3, dim=-1)
        q, k = _turned(q, turns), _turned(k, turns)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / (size // self.heads) ** 0.5
        weights = scores.masked_fill(~seen[:, None, None, :], float("-inf")).softmax(dim=-1)
        x = x + self.wo(torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(rows, length, size))
        return x + self.ffn(self.ffn_norm(x))


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.contiguous().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns[:, None, :]).flatten(-2).to(x.dtype)


class NeoBert(nn.Module):
    """The bare model, under the released names."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size, heads, eps = config["hidden_size"], config["num_attention_heads"], config["norm_eps"]
        inner = 8 * ((int(2 * config["intermediate_size"] / 3) + 7) // 8)
        self.config = config
        self.encoder = nn.Embedding(config["vocab_size"], size)
        self.transformer_encoder = nn.ModuleList(_Block(size, heads, inner, eps) for _ in range(config["num_hidden_layers"]))
        self.layer_norm = nn.RMSNorm(size, eps)

    @property
    def base_model(self) -> NeoBert:
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        x = self.encoder(input_ids)
        size = self.config["hidden_size"] // self.config["num_attention_heads"]
        # angles are float32 in the released code, whatever the weights are
        rates = 1.0 / 10_000.0 ** (torch.arange(0, size, 2).float() / size)
        angles = torch.arange(input_ids.shape[1]).float()[:, None] * rates
        turns = torch.polar(torch.ones_like(angles), angles)
        for block in self.transformer_encoder:
            x = block(x, turns, attention_mask.bool())
        return SimpleNamespace(last_hidden_state=self.layer_norm(x), pooler_output=None)

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / "model.safetensors")


class _WithHead(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.model = NeoBert(config)

    @property
    def base_model(self) -> NeoBert:
        return self.model

    save_pretrained = NeoBert.save_pretrained


class NeoBertMaskedLm(_WithHead):
    """A decoder of its own, with a bias."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.decoder = nn.Linear(config["hidden_size"], config["vocab_size"])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.decoder(self.model(input_ids, attention_mask).last_hidden_state))


class NeoBertClassifier(_WithHead):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.dense = nn.Linear(config["hidden_size"], config["hidden_size"])
        self.classifier = nn.Linear(config["hidden_size"], config["num_labels"])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        first = self.model(input_ids, attention_mask).last_hidden_state[:, 0]
        return SimpleNamespace(logits=self.classifier(torch.tanh(self.dense(first))))


REFERENCES = {
    "neobert": Reference(
        {
            **SHAPE,
            "intermediate_size": 30,
            "max_length": LONGEST,
            "norm_eps": 1e-6,
            "model_type": "neobert",
            "num_labels": LABELS,
        },
        embedding="encoder",
        layers="transformer_encoder",
        classes={"bare": NeoBert, "masked_lm": NeoBertMaskedLm, "classifier": NeoBertClassifier},
    )
}
CASES = tuple(Case("neobert", head) for head in ("bare", "masked_lm", "classifier"))
