"""Activation functions by the names of published configs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# "gelu" is the exact one (erf); "gelu_tanh" is its tanh approximation, up to 1e-3 away
# "relu2" is the square of "relu" (arXiv 2109.08668)
Activation = Literal["gelu", "gelu_tanh", "relu", "relu2", "silu", "tanh"]

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "silu": F.silu,
    "tanh": torch.tanh,
}


def activate(name: Activation, x: Tensor) -> Tensor:
    return _FUNCTIONS[name](x)
