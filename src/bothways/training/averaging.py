"""The mean of several checkpoints' weights (arXiv 1803.05407): ModernBERT's final one is that of its three best and its last."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from bothways.errors import InputError
from bothways.training import checkpoint


def average(checkpoints: Sequence[Path], module: nn.Module) -> None:
    """Read the mean of checkpoints' weights into a module, in place.

    Floating-point tensors are added in float64. What else there is (counters) is taken from the last checkpoint named.

    Raises:
        InputError: no checkpoint; one that cannot be read, or is another model's.
    """
    if not checkpoints:
        raise InputError("averaging: name at least one checkpoint, a folder step-...")
    one = copy.deepcopy(module)  # so that a fault leaves the module as it was
    sums = {
        name: torch.zeros_like(tensor, dtype=torch.float64)
        for name, tensor in one.state_dict().items()
        if tensor.is_floating_point()
    }
    for place in checkpoints:
        checkpoint.load_weights(place, one)
        state = one.state_dict()
        for name, total in sums.items():
            total += state[name]
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(sums[name] / len(checkpoints) if name in sums else one.state_dict()[name])
