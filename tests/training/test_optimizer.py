"""The optimizer step by hand, and the table that must name every parameter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bothways.training.optimizer import AdamW, Group, build, default_groups, parameter_table, set_lr

from .toy import Toy

SETTINGS = AdamW(lr=0.1, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01)


class Two(nn.Module):
    """One decayed and one undecayed number."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(1, 1))
        self.vector = nn.Parameter(torch.ones(1))


def test_adamw_by_hand() -> None:
    """Two steps, gradients 0.5 and -1, the second at half the learning rate.

    Step 1: m = 0.05, v = 0.005, corrected 0.5 and 0.25, so the update is 0.1 * 0.5 / (0.5 + 1e-6) = 0.0999998.
    Step 2: m = -0.055, v = 0.0249, corrected by 0.19 and 0.0396: 0.05 * 0.2894737 / (0.7929615 + 1e-6) = 0.0182527 upwards.
    Decay multiplies by 1 - 0.1 * 0.01, then by 1 - 0.05 * 0.01, before each update.
    """
    module = Two()
    optimizer = build(SETTINGS, module, parameter_table(module, default_groups(SETTINGS, module)))
    expected = {"matrix": (0.999 - 0.0999998, 0.8990002 * 0.9995 + 0.0182527), "vector": (0.9000002, 0.9182529)}
    for number, (gradient, lr) in enumerate([(0.5, 0.1), (-1.0, 0.05)]):
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        set_lr(optimizer, lr)
        optimizer.step()
        for name, parameter in module.named_parameters():
            assert parameter.item() == pytest.approx(expected[name][number], abs=2e-7), (name, number)


def test_the_table_is_complete() -> None:
    module = Toy()
    module.dense.weight.requires_grad_(False)
    table = parameter_table(module, default_groups(SETTINGS, module))
    named = sorted(name for row in table for name in (row.name, *row.shared))
    assert named == sorted(name for name, _ in module.named_parameters(remove_duplicate=False))
    rows = {row.name: row for row in table}
    assert (rows["embed.weight"].group, rows["embed.weight"].shared) == ("decayed", ("decoder.weight",))
    assert (rows["embed.weight"].shape, rows["embed.weight"].weight_decay) == ((11, 8), 0.01)
    assert {rows[name].group for name in ("norm.weight", "norm.bias", "dense.bias", "decoder.bias")} == {"not decayed"}
    assert rows["norm.weight"].weight_decay == 0
    assert rows["dense.weight"].group == "frozen"


def test_the_optimizer_holds_each_trainable_parameter_once() -> None:
    module = Toy()
    module.dense.weight.requires_grad_(False)
    optimizer = build(SETTINGS, module, parameter_table(module, default_groups(SETTINGS, module)))
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in held} == {id(p) for p in module.parameters() if p.requires_grad}
    assert len(held) == 5


def test_a_parameter_must_be_in_exactly_one_group() -> None:
    everything = Group("all", lambda *_: True, 1.0, 0.0)
    heads = Group("head", lambda name, _: name.startswith("decoder"), 10.0, 0.0)
    with pytest.raises(ValueError, match=r"embed.weight \(11, 8\) is in no group"):
        parameter_table(Toy(), [heads])
    with pytest.raises(ValueError, match=r"decoder.bias .* is in all and head"):
        parameter_table(Toy(), [everything, heads])


def test_groups_multiply_the_learning_rate() -> None:
    module = Two()
    groups = [Group("slow", lambda _, p: p.ndim == 2, 1.0, 0.0), Group("fast", lambda _, p: p.ndim == 1, 10.0, 0.0)]
    optimizer = build(SETTINGS, module, parameter_table(module, groups))
    set_lr(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 2.5]
