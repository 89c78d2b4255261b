"""A toy module and a toy stream for the training room, which knows no objective and no corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY, WIDTH = 11, 8


@dataclass(frozen=True)
class Rows:
    """Tokens to be classified; only the selected ones count."""

    ids: Tensor
    labels: Tensor
    selected: Tensor

    @property
    def tokens(self) -> int:
        return self.ids.shape[0]

    def to(self, device: torch.device | str) -> Rows:
        return replace(self, ids=self.ids.to(device), labels=self.labels.to(device), selected=self.selected.to(device))

    def cut(self, *sizes: int) -> list[Rows]:
        parts = zip(self.ids.split(sizes), self.labels.split(sizes), self.selected.split(sizes), strict=True)
        return [Rows(*part) for part in parts]


class Stream:
    """Input k is a function of (seed, k); at most `longest` tokens each."""

    def __init__(self, state: Mapping[str, int] | None, seed: int = 0, longest: int = 24, end: int | None = None) -> None:
        self.batch, self.seed, self.longest, self.end = (state or {"batch": 0})["batch"], seed, longest, end

    def __next__(self) -> Rows:
        if self.batch == self.end:
            raise StopIteration
        draw = torch.Generator().manual_seed(1000 * self.seed + self.batch)
        self.batch += 1
        tokens = int(torch.randint(8, self.longest + 1, (), generator=draw))
        ids = torch.randint(VOCABULARY, (tokens,), generator=draw)
        return Rows(ids, (ids * 3 + 1) % VOCABULARY, torch.rand(tokens, generator=draw) < 0.5)

    def state(self) -> dict[str, int]:
        return {"batch": self.batch}


class Toy(nn.Module):
    """An embedding tied to its decoder, a norm, dropout: all a checkpoint has to mind."""

    weights: Mapping[str, float] = {"cross_entropy": 1.0, "size": 0.5}
    whole_batch = False

    def __init__(self, dropout: float = 0.0, seed: int = 7) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.dense = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(WIDTH, VOCABULARY)
        self.decoder.weight = self.embed.weight
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def counts(self, inputs: Rows) -> dict[str, Tensor]:
        selected = inputs.selected.sum()
        return {"cross_entropy": selected, "size": torch.tensor(inputs.tokens), "accuracy": selected}

    def forward(self, inputs: Rows) -> dict[str, Tensor]:
        hidden = self.dropout(torch.tanh(self.dense(self.norm(self.embed(inputs.ids)))))
        logits, labels = self.decoder(hidden)[inputs.selected], inputs.labels[inputs.selected]
        return {
            "cross_entropy": F.cross_entropy(logits, labels, reduction="sum"),
            "size": hidden.square().mean(-1).sum(),
            "accuracy": (logits.argmax(-1) == labels).sum().float(),
        }

    def flops(self, inputs: Rows) -> float:
        return 2.0 * inputs.tokens * (WIDTH * WIDTH + WIDTH * VOCABULARY)
