"""How a run's weights lie in its processes: a copy in each, or every one a part of them (FSDP2).

Each process computes its share of a step's micro-batches; gradients are sums, so adding them up over micro-batches and
over processes is the same thing. `Shard` trains a copy of the module that torch's `fully_shard` has cut up; the module
that was given stays whole, and is brought up to date in the first process whenever someone looks at it.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn

from bothways.config import config
from bothways.training.team import Team
from bothways.training.trainable import I


@config
class Replicate:
    """Every process holds all weights and all of the optimizer's state."""

    type: Literal["replicate"] = "replicate"


@config
class Shard:
    """Weights, gradients and optimizer state are cut up among the processes (torch's FSDP2)."""

    type: Literal["shard"] = "shard"


Parallel: TypeAlias = Annotated[Replicate | Shard, Field(discriminator="type")]


@dataclass(frozen=True, eq=False)
class Micro(Generic[I]):
    """A micro-batch to compute.

    Attributes:
        number: its place in the step, which seeds what is drawn in it.
        counts: False for one that is computed only because all processes must take part, and counts for nothing.
    """

    number: int
    inputs: I
    counts: bool = True


@runtime_checkable
class Spread(Protocol[I]):
    """What a step asks of the way weights are spread."""

    team: Team
    spare: Callable[[], I]

    def rounds(self, inputs: Sequence[I | None]) -> list[Micro[I]]:
        """What this process computes of a step's micro-batches; None stands for another's."""
        ...

    def begin(self, last: bool) -> None:
        """Told before each backward pass."""
        ...

    def end(self, parameters: Sequence[nn.Parameter]) -> None:
        """After the last backward pass: makes the gradients those of the whole step."""
        ...

    def gather(self) -> None:
        """Bring the given module up to date in the first process. All must take part."""
        ...


class Replicated(Generic[I]):
    """A copy of the module in each process; `spare` gives any input to a process that a step has none for."""

    def __init__(self, team: Team, spare: Callable[[], I]) -> None:
        self.team, self.spare = team, spare

    def rounds(self, inputs: Sequence[I | None]) -> list[Micro[I]]:
        return _own(inputs) or [Micro(0, self.spare(), counts=False)]  # for the names of sums and counts

    def begin(self, last: bool) -> None:
        pass

    def end(self, parameters: Sequence[nn.Parameter]) -> None:
        self.team.add_gradients(parameters)

    def gather(self) -> None:
        pass


class Sharded(Generic[I]):
    """A copy of `given`, cut up; `module` is what is trained."""

    def __init__(self, given: nn.Module, team: Team, spare: Callable[[], I], device: torch.device) -> None:
        self.team, self.spare, self._given = team, spare, given
        self.module = copy.deepcopy(given)
        _shard(self.module, team, device)
        if not team.first:
            given.to("meta")  # only the first process looks at it

    def rounds(self, inputs: Sequence[I | None]) -> list[Micro[I]]:
        own = _own(inputs)
        most = -(-len(inputs) // self.team.size)  # of any process: layers are gathered and gradients cut up by all together
        idle = [Micro(0, own[-1].inputs if own else self.spare(), counts=False) for _ in range(most - len(own))]
        return idle + own

    def begin(self, last: bool) -> None:
        self.module.set_requires_gradient_sync(last)  # type: ignore[operator]  # a method of fully_shard's

    def end(self, parameters: Sequence[nn.Parameter]) -> None:
        pass

    def gather(self) -> None:
        with torch.no_grad():
            given = dict(self._given.state_dict(keep_vars=True))
            for name, tensor in named_once(self.module).items():
                full = whole(tensor)
                if self.team.first:
                    given[name].copy_(full)


def spread(
    parallel: Replicate | Shard, module: nn.Module, team: Team, spare: Callable[[], I], device: torch.device
) -> tuple[Any, Spread[I]]:
    """The module to train (given, on its device), and how it is spread; one process always has all of it."""
    if team.size == 1 or isinstance(parallel, Replicate):
        return module, Replicated(team, spare)
    sharded = Sharded(module, team, spare, device)
    return sharded.module, sharded


def named_once(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and persistent buffer once, under the first of its names."""
    names: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), (name, tensor.detach()))
    return dict(names.values())


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor, gathered; any other as it is. All processes must take part."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor cut up as `other` is, where it has the same axes; without asking other processes.

    Those that are cut must be as long as `other`'s, the rest may be shorter: a number for each row of a matrix, say.
    """
    from torch.distributed.tensor import DTensor, distribute_tensor
    from torch.distributed.tensor import Shard as Cut

    if not isinstance(other, DTensor) or tensor.ndim != other.ndim:
        return tensor
    if any(isinstance(one, Cut) and tensor.shape[one.dim] != other.shape[one.dim] for one in other.placements):
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def _own(inputs: Sequence[I | None]) -> list[Micro[I]]:
    return [Micro(number, one) for number, one in enumerate(inputs) if one is not None]


def _shard(module: nn.Module, team: Team, device: torch.device) -> None:
    """Cut up each block of a stack by itself, and all that remains together."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(device.type, (team.size,))
    names = Counter(parameter for _, parameter in module.named_parameters(remove_duplicate=False))
    for block in list(_blocks(module, names)):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)  # gradients are sums ...
            part.set_force_sum_reduction_for_comms(True)  # ... for which gloo knows no scaling


def _blocks(module: nn.Module, names: Counter[nn.Parameter]) -> Iterator[nn.Module]:
    """The modules of the outermost lists, without those that share a parameter with another module."""
    for child in module.children():
        parameters = list(child.parameters())
        if isinstance(module, nn.ModuleList) and parameters and all(names[parameter] == 1 for parameter in parameters):
            yield child
        else:
            yield from _blocks(child, names)
