"""Compiled layers: one graph a kind of layer, whatever the lengths; the same numbers, names and checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from tests.builders import CONFIGS, gap, random_batch, randomise
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from bothways.encoder.encoder import Encoder, EncoderLayer
from bothways.errors import InputError
from bothways.ops.attention import REFERENCE, Backend
from bothways.ragged import Batch, Capacity
from bothways.training import compiling
from bothways.training.checkpoint import place_of
from bothways.training.compiling import compile_layers, uncompiled
from bothways.training.loop import train
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Fraction, Linear, Steps
from bothways.training.settings import TrainingConfig, Watch

from .small import Small, Texts

CPU = torch.device("cpu")
ROOM = Capacity(tokens=40, slots=7, longest=17)
BATCHES = [random_batch(lengths, seed=n).to_capacity(ROOM) for n, lengths in enumerate([[17, 9, 7], [12, 12, 5, 2], [16, 3, 1, 1]])]
# Kinds of layers: ModernBERT's first has no norm of its own, the others are local or global
KINDS = {"bert": 1, "modernbert": 3, "neobert": 1, "albert": 1}


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """Counts what is compiled, by all of torch's compiler but the last part, which needs one of C++."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(compiling, "BACKEND", counter)
    # annotations are not checked: what checks them is Python that cannot be compiled
    jaxtyping.config.update("jaxtyping_disable", True)
    yield counter
    jaxtyping.config.update("jaxtyping_disable", False)
    torch._dynamo.reset()


def encoder(name: str, backend: Backend | None, layers: int = 4) -> Encoder:
    made = Encoder(replace(CONFIGS[name], num_layers=layers))
    randomise(made)
    for part in made.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    made.backend = backend
    return made.train()


def learned(module: Encoder, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    module.zero_grad()
    hidden = module(batch).hidden[: batch.tokens]
    (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum().backward()
    return hidden.detach(), [p.grad.clone() for p in module.parameters() if p.grad is not None]
