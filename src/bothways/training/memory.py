"""How much memory a step takes, found without taking it: the step is carried out on tensors that have no contents.

torch's fake tensors go through the very operations of a real step, forward, backward and optimizer, so what autograd
keeps is what it would keep, for any network; what is alive at each moment is added up here.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bothways.training import step as steps
from bothways.training.optimizer import default_groups, parameter_table
from bothways.training.settings import TrainingConfig
from bothways.training.trainable import I, Trainable
from bothways.training.update import Updates


@dataclass(frozen=True)
class Footprint:
    """Bytes of a run's tensors.

    Attributes:
        weights: parameters and buffers.
        gradients: of every trained parameter.
        optimizer: its state, and a moving average of the weights where there is one.
        activations: all else that is alive when most is: what the forward pass leaves for the backward pass, and what is
            being computed. Where a step has one micro-batch, there are no gradients yet at that moment.
        peak: the most that is alive at once.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    peak: int


def footprint(make: Callable[[], Trainable[I]], inputs: Sequence[I], settings: TrainingConfig) -> Footprint:
    """What a step on these micro-batches takes on a CPU.

    Two micro-batches stand for any number above one: the gradients of the first are there while the second goes forward.

    Args:
        make: builds the module; called where its tensors have no contents.
    """
    if settings.precision == "bf16":  # the same tensors on any device; this one need not be fast
        settings = replace(settings, precision="bf16_emulated")
    settings = replace(settings, compile=False)  # a compiler needs contents
    with FakeTensorMode(allow_non_fake_inputs=True), _Alive() as alive:
        module = make()
        assert isinstance(module, nn.Module), "a Trainable is an nn.Module"
        module.train()
        weights = alive.now
        table = parameter_table(module, default_groups(settings.optimizer, module))
        updates = Updates(module, settings, table, steps.step, torch.device("cpu"))
        updates.queue(inputs[:2], 0, lr=0.0)  # the first step makes the optimizer's state
        gradients = sum(p.grad.nbytes for p in module.parameters() if p.grad is not None)
        optimizer = alive.now - weights - gradients
        alive.most = 0
        updates.queue(inputs[:2], 1, lr=0.0)
        standing = weights + optimizer + (gradients if len(inputs) > 1 else 0)
        return Footprint(weights, gradients, optimizer, alive.most - standing, alive.most)


class _Alive(TorchDispatchMode):
    """Adds up the bytes of all storages that operations make, for as long as something holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0 if args[0].dtype.is_floating_point else 1  # an optimizer reads how many steps it has made
        chosen = _chosen(*args) if func is torch.ops.aten.index.Tensor else None
        out = func(*args, **(kwargs or {})) if chosen is None else chosen
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _chosen(tensor: Tensor, indices: Sequence[Tensor | None]) -> Tensor | None:
    """What a mask of rows leaves of a tensor, where only its contents could say how much: half of it."""
    mask = indices[0]
    if mask is None or mask.dtype != torch.bool:
        return None
    return tensor.new_empty((-(-mask.numel() // 2), *tensor.shape[mask.dim() :]))
