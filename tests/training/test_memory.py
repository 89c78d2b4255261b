"""What a step takes, worked out by hand for small networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bothways.training.memory import footprint
from bothways.training.optimizer import AdamW, BertAdam, Lamb, StableAdamW
from bothways.training.step import step

from .toy import Rows, settings

ROWS, WIDTH, LAYERS = 4096, 32, 3


class Linears(nn.Module):
    """Layers whose inputs are all that autograd keeps."""

    weights = {"loss": 1.0}  # noqa: RUF012
    whole_batch = False

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))
        self.table = nn.Embedding(11, WIDTH)

    def counts(self, inputs: Rows) -> dict[str, Tensor]:
        return {"loss": torch.tensor(inputs.tokens)}

    def forward(self, inputs: Rows) -> dict[str, Tensor]:
        x = self.table(inputs.ids)
        for layer in self.layers:
            x = layer(x)
        return {"loss": x.sum()}

    def flops(self, inputs: Rows) -> float:
        return 0.0


def rows(count: int) -> Rows:
    ids = torch.arange(count) % 11
    return Rows(ids, ids, ids > 5)


def test_by_hand() -> None:
    found = footprint(Linears, [rows(ROWS)], settings())
    weights = 4 * (LAYERS * WIDTH**2 + 11 * WIDTH)
    assert (found.weights, found.gradients) == (weights, weights)
    assert found.optimizer == 2 * weights + 4 * (LAYERS + 1)  # two moments, and the steps of each parameter
    # the input of each layer and the output of the last, which go while two gradients of that size come
    activation = 4 * ROWS * WIDTH
    assert LAYERS + 1 <= found.activations / activation < LAYERS + 2.2
    assert found.peak == found.weights + found.optimizer + found.activations


def test_activations_grow_with_the_tokens_and_nothing_else() -> None:
    one, two = (footprint(Linears, [rows(count)], settings()) for count in (ROWS, 2 * ROWS))
    assert (one.weights, one.gradients, one.optimizer) == (two.weights, two.gradients, two.optimizer)
    assert two.activations == pytest.approx(2 * one.activations, rel=0.02)


def test_a_second_micro_batch_finds_the_gradients_of_the_first() -> None:
    one, two = (footprint(Linears, [rows(ROWS)] * count, settings()) for count in (1, 2))
    # at the worst moment of one micro-batch the backward pass has begun: some gradients are there already
    assert 0.5 * one.gradients < two.peak - one.peak <= one.gradients


@pytest.mark.parametrize(
    ("optimizer", "moments"), [(AdamW(lr=1), 2), (StableAdamW(lr=1), 2), (Lamb(lr=1), 2), (BertAdam(lr=1), 2)]
)
def test_every_optimizer_is_gone_through(optimizer: Any, moments: int) -> None:
    found = footprint(Linears, [rows(ROWS)], settings(optimizer=optimizer))
    assert found.optimizer == pytest.approx(2 * found.weights, abs=100)  # two moments, and counters of steps


def test_it_is_what_autograd_keeps_of_real_tensors() -> None:
    """Saved tensors of a real forward pass, each storage once, are at most what was foretold, and most of it."""
    kept: dict[int, Tensor] = {}
    module = Linears()

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step(module, [rows(ROWS)], lambda micro: None)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    saved = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in parameters)
    found = footprint(Linears, [rows(ROWS)], settings())
    assert 0.5 * found.activations < saved <= found.activations
