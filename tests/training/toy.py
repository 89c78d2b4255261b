"""A toy module and a toy stream for the training room, which knows no objective and no corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.training.loop import Result, train
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Fraction, Linear, Steps
from bothways.training.settings import TrainingConfig

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

    def close(self) -> None:
        self.closed = True


class Toy(nn.Module):
    """An embedding tied to its decoder, a norm, dropout: all a checkpoint has to mind."""

    weights: Mapping[str, float] = {"cross_entropy": 1.0, "size": 0.5}
    whole_batch = False
    calls: Tensor

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


RUN = '{"objective": {"type": "toy", "rate": 0.5}, "seed": 0}'
STEPS = 20


def settings(**changes: Any) -> TrainingConfig:
    """Twenty steps of two micro-batches, with a checkpoint every three steps and a log line every two."""
    usual: dict[str, Any] = {
        "optimizer": AdamW(lr=0.02),
        "schedule": Linear(warmup=Fraction(of=0.2)),
        "budget": Steps(count=STEPS),
        "accumulate": 2,
        "log_every": 2,
        "checkpoint_every": 3,
        "evaluate_every": 5,
    }
    return TrainingConfig(**usual | changes)


def run(folder: Path, module: Toy | None = None, changes: Mapping[str, Any] | None = None, **options: Any) -> Result:
    """Train a toy with dropout, unless another is given."""
    usual: dict[str, Any] = {"device": "cpu", "run": RUN, "open_stream": Stream}
    return train(module or Toy(dropout=0.2), settings=settings(**changes or {}), folder=folder, **usual | options)
