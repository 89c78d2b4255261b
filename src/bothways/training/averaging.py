"""Means of weights: of several checkpoints (arXiv 1803.05407), and one that moves along with training.

ModernBERT's final weights are the mean of its three best checkpoints and its last.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from bothways.config import config
from bothways.errors import InputError
from bothways.training import checkpoint
from bothways.training.distributed import named_once


@config
class MovingAverage:
    """mean = decay * mean + (1 - decay) * weights after each step, in float32 as the weights are.

    In the first steps (1 + step) / (10 + step) stands for a higher decay: the weights of the beginning are soon forgotten.
    """

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999


class Mean:
    """The moving average of a module's weights and floating-point buffers.

    Attributes:
        tensors: the mean by the names of the weights, cut up as they are.
    """

    def __init__(self, settings: MovingAverage, module: nn.Module) -> None:
        self._decay, self._module = settings.decay, module
        self.tensors = {name: tensor.clone() for name, tensor in named_once(module).items() if tensor.is_floating_point()}

    def update(self, step: int) -> None:
        """Take in the weights that `step`, counted from 0, has left."""
        weights = named_once(self._module)
        move = get_ema_multi_avg_fn(min(self._decay, (1 + step) / (10 + step)))
        move([*self.tensors.values()], [weights[name] for name in self.tensors], None)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The module with the mean in place of its weights."""
        weights = {name: tensor.clone() for name, tensor in named_once(self._module).items() if name in self.tensors}
        self.settle()
        try:
            yield
        finally:
            self._put(weights)

    def settle(self) -> None:
        """Leave the mean in the module."""
        self._put(self.tensors)

    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in named_once(self._module).items():
                if name in tensors:
                    tensor.copy_(tensors[name])


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
