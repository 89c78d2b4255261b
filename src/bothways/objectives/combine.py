"""Several objectives as one: of the same samples, each with inputs of its own, and their losses added by weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import torch
from jaxtyping import Num
from torch import Tensor, nn

from bothways.data.sample import Epochs, Sample
from bothways.errors import InputError
from bothways.objectives.objective import Objective, Prepare


@dataclass(frozen=True, eq=False)
class CombinedInputs:
    """The inputs of each part, by its name. `tokens` are the fewest of a part: text that is read several times is text once."""

    parts: Mapping[str, Any]

    @property
    def tokens(self) -> int:
        return min(one.tokens for one in self.parts.values())

    def to(self, device: torch.device | str) -> CombinedInputs:
        return CombinedInputs({name: one.to(device) for name, one in self.parts.items()})


@dataclass(frozen=True)
class PrepareCombined:
    """Prepares the same samples for each part."""

    parts: Mapping[str, Prepare[Any]]

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> CombinedInputs:
        return CombinedInputs({name: prepare(samples, seed, epoch) for name, prepare in self.parts.items()})


class Combine(Objective[CombinedInputs]):
    """Objectives that share what modules they like: mostly the encoder. Parts may be combinations themselves.

    Sums: those of each part, named PART/SUM; the weight of a loss is that of its part times its own in the part.

    Args:
        parts: by name, in the order they are computed.
        weights: of the parts; 1 where nothing is said.

    Raises:
        InputError: no part, a name that none can have, or a weight of a part that is not there.
    """

    def __init__(self, parts: Mapping[str, Objective[Any]], weights: Mapping[str, float] = MappingProxyType({})) -> None:
        super().__init__()
        if not parts:
            raise InputError("Combine: no objective to combine")
        for name in parts:
            if not name or "/" in name or "." in name or hasattr(nn.ModuleDict, name):
                raise InputError(f"Combine: '{name}' is no name for a part; take another, without slashes and dots")
        if unknown := weights.keys() - parts.keys():
            raise InputError(f"Combine: a weight for '{min(unknown)}', which is no part; there is {', '.join(parts)}")
        self.parts = nn.ModuleDict(parts)
        self.weights: Mapping[str, float] = {
            f"{name}/{term}": weights.get(name, 1.0) * weight
            for name, part in parts.items()
            for term, weight in part.weights.items()
        }
        self.whole_batch = any(part.whole_batch for part in parts.values())
        self.prepare = PrepareCombined({name: part.prepare for name, part in parts.items()})

    def counts(self, inputs: CombinedInputs) -> dict[str, Num[Tensor, ""]]:
        return self._named(inputs, lambda part, own: part.counts(own))

    def forward(self, inputs: CombinedInputs) -> dict[str, Num[Tensor, ""]]:
        return self._named(inputs, lambda part, own: part(own))

    def flops(self, inputs: CombinedInputs) -> float:
        return sum(part.flops(inputs.parts[name]) for name, part in self._items())

    def _items(self) -> Iterable[tuple[str, Objective[Any]]]:
        return ((name, cast("Objective[Any]", part)) for name, part in self.parts.items())

    def _named(self, inputs: CombinedInputs, of: Callable[[Objective[Any], Any], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {f"{name}/{term}": value for name, part in self._items() for term, value in of(part, inputs.parts[name]).items()}
