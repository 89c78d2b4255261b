"""Every optimizer on sharded parameters (FSDP2) makes the steps that it makes on whole ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from bothways.training.optimizer import build, default_groups, parameter_table
from bothways.training.step import step

from .small import Small, TextStream
from .test_optimizer_state import OPTIMIZERS


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    """One process that is a group of its own: parameters are DTensors, as they are in many."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def stepped(module: Small, name: str) -> None:
    settings, stream = OPTIMIZERS[name], TextStream(None)
    optimizer = build(settings, module, parameter_table(module, default_groups(settings, module)))
    for _ in range(3):
        optimizer.zero_grad()
        step(module, [next(stream)], lambda _: None)
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sharded_steps_are_the_same(name: str, mesh: DeviceMesh) -> None:
    whole, sharded = Small(), Small()
    for layer in sharded.encoder.layers:
        fully_shard(layer, mesh=mesh)  # type: ignore[arg-type]
    fully_shard(sharded, mesh=mesh)
    stepped(whole, name)
    stepped(sharded, name)
    for (label, one), other in zip(whole.named_parameters(), sharded.parameters(), strict=True):
        assert isinstance(other, DTensor)
        torch.testing.assert_close(one, other.full_tensor(), rtol=1e-5, atol=1e-6, msg=label)
