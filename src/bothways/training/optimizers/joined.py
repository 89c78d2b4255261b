"""Several optimizers as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Joined(torch.optim.Optimizer):
    """Optimizers of different parameters, stepped together. Groups and state are theirs, seen through one object."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__([group for one in optimizers for group in one.param_groups], {})
        self._optimizers = list(optimizers)
        self._share()

    def _share(self) -> None:
        """Let all hold the same groups and the same state."""
        first = 0
        for one in self._optimizers:
            end = first + len(one.param_groups)
            one.param_groups, one.state = self.param_groups[first:end], self.state
            first = end

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for one in self._optimizers:
            one.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.state: defaultdict[Tensor, Any] = self.state
        self._share()
