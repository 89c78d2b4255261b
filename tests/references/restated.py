"""What models restated here share: their folders, and attention over padded rows with an explicit bias."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


class Restated(nn.Module):
    """A bare model: built from the dict of its config.json, saved as a folder."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config

    @property
    def base_model(self) -> nn.Module:
        return self

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / "model.safetensors")


def attend(qkv: tuple[Tensor, Tensor, Tensor], heads: int, bias: Tensor, seen: Tensor) -> Tensor:
    """softmax(q k / sqrt(size) + bias) v over rows [rows, length, hidden]; `seen` [rows, length] are the real tokens."""
    q, k, v = (x.unflatten(-1, (heads, -1)) for x in qkv)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5 + bias.to(q.dtype)
    weights = scores.masked_fill(~seen[:, None, None, :], float("-inf")).softmax(dim=-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(-2)


class TiedPredictions(nn.Module):
    """dense, activation and norm as BERT names them; the table is handed in, its bias called `bias`."""

    def __init__(self, size: int, vocab_size: int, activation: nn.Module, eps: float) -> None:
        super().__init__()
        self.transform = nn.ModuleDict({"dense": nn.Linear(size, size), "LayerNorm": nn.LayerNorm(size, eps)})
        self.activation = activation
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return self.transform["LayerNorm"](self.activation(self.transform["dense"](x))) @ table.T + self.bias
