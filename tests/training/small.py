"""A small encoder under a vocabulary head, as the loop trains one: for what depends on where a parameter stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from tests.builders import CONFIGS, VOCAB, random_batch, randomise
from torch import Tensor, nn

from bothways.encoder.encoder import Encoder
from bothways.families.bert import masked_lm_head
from bothways.layers.heads import MaskedLm
from bothways.ragged import Batch


@dataclass(frozen=True)
class Texts:
    """A batch whose every third token is to be told."""

    batch: Batch

    @property
    def tokens(self) -> int:
        return self.batch.tokens

    @property
    def filler(self) -> int:
        return self.batch.ragged.filler

    @property
    def rows(self) -> Tensor:
        return torch.arange(0, self.tokens, 3, device=self.batch.ids.device)

    def to(self, device: torch.device | str) -> Texts:
        return replace(self, batch=self.batch.to(device))


class TextStream:
    """Input k is a function of k."""

    def __init__(self, state: Mapping[str, int] | None) -> None:
        self.batch = (state or {"batch": 0})["batch"]

    def __next__(self) -> Texts:
        self.batch += 1
        return Texts(random_batch([5 + self.batch % 4, 9], seed=self.batch))

    def state(self) -> dict[str, int]:
        return {"batch": self.batch}

    def close(self) -> None:
        pass


class Small(nn.Module):
    """Two layers (of one of `tests.builders.CONFIGS`), their embedding, and a head that is tied or not."""

    weights: Mapping[str, float] = {"loss": 1.0}
    whole_batch = False

    def __init__(self, name: str = "modernbert", seed: int = 3, tied: bool = True, layers: int = 2) -> None:
        super().__init__()
        config = replace(CONFIGS[name], num_layers=layers)
        self.encoder = Encoder(config)
        head = replace(masked_lm_head(config), tied=tied)
        self.head = MaskedLm(head, config.hidden_size, VOCAB, config.embedding.size)
        randomise(self, seed)

    def counts(self, inputs: Texts) -> dict[str, Tensor]:
        return {"loss": torch.tensor(len(inputs.rows))}

    def forward(self, inputs: Texts) -> dict[str, Tensor]:
        hidden, labels = self.encoder(inputs.batch).hidden[inputs.rows], inputs.batch.ids[inputs.rows].long()
        return {"loss": self.head.loss(hidden, self.encoder.embedding.tokens.weight, labels)[0]}

    def flops(self, inputs: Texts) -> float:
        return self.encoder.flops(inputs.batch.ragged)
