"""The law of sums and counts: how a step is cut into micro-batches changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.training.step import loss, means, step

from .toy import Rows, Toy

IDS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])
WHOLE = Rows(IDS, (IDS * 3 + 1) % 11, torch.tensor([1, 1, 1, 0, 0, 0, 1, 0]).bool())


def gradients(inputs: list[Rows]) -> tuple[dict[str, torch.Tensor], float]:
    module = Toy()
    sums, counts = step(module, inputs, lambda _: None)
    values = means(*({name: float(value) for name, value in part.items()} for part in (sums, counts)))
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}, loss(module.weights, values)


@given(cut=st.integers(0, 8), other=st.integers(0, 8))
@settings(deadline=None, max_examples=30)
def test_any_cut_gives_the_same_gradient_and_loss(cut: int, other: int) -> None:
    """Cuts include parts without a selected token, and empty ones."""
    first, second = sorted((cut, other))
    whole, parts = gradients([WHOLE]), gradients(WHOLE.cut(first, second - first, 8 - second))
    assert parts[1] == pytest.approx(whole[1], abs=1e-6)
    for name, gradient in whole[0].items():
        torch.testing.assert_close(parts[0][name], gradient, rtol=0, atol=1e-6)


def test_the_mean_of_means_is_another_number() -> None:
    """The test above would fail for the usual shortcut, since the halves have 3 and 1 selected tokens."""
    whole, halves = gradients([WHOLE]), [gradients([half]) for half in WHOLE.cut(4, 4)]
    wrong = (halves[0][0]["dense.weight"] + halves[1][0]["dense.weight"]) / 2
    assert (wrong - whole[0]["dense.weight"]).abs().max() > 1e-3


class Dense(Toy):
    """Computes every row and multiplies those that do not count by 0, which would make 0 / 0 a gradient."""

    def forward(self, inputs: Rows) -> dict[str, torch.Tensor]:
        everything = replace(inputs, selected=torch.ones_like(inputs.selected))
        hidden = self.decoder(torch.tanh(self.dense(self.norm(self.embed(everything.ids)))))
        each = torch.nn.functional.cross_entropy(hidden, inputs.labels, reduction="none")
        return super().forward(inputs) | {"cross_entropy": (each * inputs.selected).sum()}


@pytest.mark.parametrize("module", [Toy(), Dense()])
def test_nothing_selected_leaves_only_the_other_term(module: Toy) -> None:
    none = Rows(WHOLE.ids, WHOLE.labels, torch.zeros(8, dtype=torch.bool))
    sums, counts = step(module, [none], lambda _: None)
    assert counts["cross_entropy"] == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    values = means(*({name: float(value) for name, value in part.items()} for part in (sums, counts)))
    assert values.keys() == {"size"}
    assert loss(module.weights, values) == 0.5 * values["size"]


def test_seeds_are_set_before_each_micro_batch() -> None:
    seen: list[int] = []
    step(Toy(), WHOLE.cut(2, 3, 3), seen.append)
    assert seen == [0, 1, 2]


def test_sums_without_counts_are_refused() -> None:
    class Careless(Toy):
        def counts(self, inputs: Rows) -> dict[str, torch.Tensor]:
            return {name: count for name, count in super().counts(inputs).items() if name != "accuracy"}

    with pytest.raises(ValueError, match=r"sums .*accuracy.* and counts .* must have the same names"):
        step(Careless(), [WHOLE], lambda _: None)
