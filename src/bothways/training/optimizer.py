"""The optimizer, and the table that says what it does to every parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field
from torch import nn

from bothways.config import config

Beta = Annotated[float, Field(ge=0, lt=1)]


@config
class AdamW:
    """Adam with decoupled weight decay and bias correction (arXiv 1711.05101), as torch computes it."""

    type: Literal["adamw"] = "adamw"
    lr: Annotated[float, Field(gt=0)]
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: Annotated[float, Field(gt=0)] = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.01


# The second optimizer makes this a union told apart by `type`, as in schedule.py.
Optimizer: TypeAlias = AdamW


@dataclass(frozen=True)
class Group:
    """Parameters treated alike.

    Attributes:
        holds: whether a trainable parameter, given with its name, belongs here.
        lr: a multiplier of the learning rate.
    """

    name: str
    holds: Callable[[str, nn.Parameter], bool]
    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Row:
    """One parameter of the table; `shared` are the other names of the same tensor."""

    name: str
    shape: tuple[int, ...]
    group: str
    lr: float
    weight_decay: float
    shared: tuple[str, ...]


def default_groups(settings: Optimizer) -> tuple[Group, ...]:
    """Weight decay on matrices only: not on biases, norms and other parameters of one axis."""
    return (
        Group("decayed", lambda _, parameter: parameter.ndim >= 2, 1.0, settings.weight_decay),
        Group("not decayed", lambda _, parameter: parameter.ndim < 2, 1.0, 0.0),
    )


def parameter_table(module: nn.Module, groups: Sequence[Group]) -> tuple[Row, ...]:
    """Every parameter once, with its group; a frozen one in the group "frozen".

    Raises:
        ValueError: a trainable parameter in no group, or in two; the message names it.
    """
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    frozen = Group("frozen", lambda *_: True, 0.0, 0.0)
    rows = []
    for parameter, (name, *shared) in names.items():
        group = _group(name, parameter, groups) if parameter.requires_grad else frozen
        rows.append(Row(name, tuple(parameter.shape), group.name, group.lr, group.weight_decay, tuple(shared)))
    return tuple(rows)


def build(settings: Optimizer, module: nn.Module, table: Sequence[Row]) -> torch.optim.Optimizer:
    """The torch optimizer of a parameter table. The loop sets `lr` before every step: settings, schedule and row multiplied."""
    parameters = dict(module.named_parameters())
    rows: dict[tuple[str, float, float], list[Row]] = {}
    for row in table:
        if parameters[row.name].requires_grad:
            rows.setdefault((row.group, row.lr, row.weight_decay), []).append(row)
    groups = [
        {"params": [(row.name, parameters[row.name]) for row in members], "weight_decay": decay, "multiplier": lr}
        for (_, lr, decay), members in rows.items()
    ]
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters.values())
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["multiplier"]


def _group(name: str, parameter: nn.Parameter, groups: Sequence[Group]) -> Group:
    found = [group for group in groups if group.holds(name, parameter)]
    if len(found) != 1:
        where = " and ".join(group.name for group in found) or "no group"
        raise ValueError(f"parameter {name} {tuple(parameter.shape)} is in {where}; it must be in exactly one")
    return found[0]
