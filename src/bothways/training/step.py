"""One optimizer step's gradients, by sums and counts.

The denominators of all micro-batches are added before the first forward pass, so that splitting a
step into micro-batches changes nothing but the order of floating-point additions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bothways.training.distributed import Replicated, Spread
from bothways.training.team import Team
from bothways.training.trainable import I, Scalars, Trainable


def _none() -> Any:
    raise AssertionError("a process alone has all inputs of a step")


ALONE: Spread[Any] = Replicated(Team(), _none)


def step(
    module: Trainable[I], inputs: Sequence[I | None], seed: Callable[[int], None], spread: Spread[I] = ALONE
) -> tuple[Scalars, Scalars]:
    """Leave the gradient of `sum_k weight_k * sum_k / count_k` in the module's parameters, or this process's part of it.

    This is the loop's replaceable seam.

    Args:
        inputs: the step's micro-batches, on the module's device; None stands for one of another process.
        seed: seeds torch for the n-th micro-batch; called before each forward pass.
        spread: which of them this process computes, and how counts come together.

    Returns:
        The sums of this process's micro-batches and the counts of the whole step, detached, with equal keys.
    """
    micros = spread.rounds(inputs)
    own = _total(_counted(module.counts(micro.inputs), micro.counts) for micro in micros)
    counts = spread.team.scalars(own)
    scales = {name: _scale(weight, counts[name]) for name, weight in module.weights.items()}
    sums = []
    for place, micro in enumerate(micros, start=1):
        seed(micro.number)
        terms = _counted(module(micro.inputs), micro.counts)
        spread.begin(last=place == len(micros))
        if terms.keys() != counts.keys():
            raise ValueError(f"sums {sorted(terms)} and counts {sorted(counts)} must have the same names")
        torch.stack([terms[name] * scale for name, scale in scales.items()]).sum().backward()
        sums.append({name: term.detach() for name, term in terms.items()})
    return _total(sums), counts


def means(sums: Mapping[str, float], counts: Mapping[str, float]) -> dict[str, float]:
    """The means of what was counted at all; a name whose count is 0 is left out."""
    return {name: total / counts[name] for name, total in sums.items() if counts[name]}


def loss(weights: Mapping[str, float], values: Mapping[str, float]) -> float:
    """The weighted sum of the loss terms that were counted."""
    return sum(weight * values[name] for name, weight in weights.items() if name in values)


def _counted(scalars: Scalars, counts: bool) -> Scalars:
    return scalars if counts else {name: value * 0 for name, value in scalars.items()}


def _scale(weight: float, count: Tensor) -> Tensor:
    """`weight / count`; 0 where nothing was counted, as when no token of a step is masked."""
    return torch.where(count > 0, weight / count, torch.zeros_like(count, dtype=torch.float32))


def _total(parts: Iterable[Scalars]) -> Scalars:
    total: Scalars = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total[name] + value if name in total else value
    return total
