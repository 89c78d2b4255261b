"""The processes that train together, as `torchrun` starts them, and what they tell each other.

Figures and agreements are numbers on the host and go by gloo, whatever the device; gradients go by the device's own way
(NCCL, or gloo on a CPU).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous

from bothways.data.loader import Share
from bothways.errors import InputError
from bothways.training.trainable import Scalars

# How long the others wait while the first process tokenises a corpus or evaluates; torchrun ends them when it dies
_PATIENCE = timedelta(days=7)
# Gradients are added up so many bytes at a time: enough to keep a network busy, little enough beside the model
_BUCKET = 1 << 26


class Team:
    """One of `size` processes; alone, every method answers at once. All must call the same methods in the same order."""

    def __init__(self, rank: int = 0, size: int = 1, group: dist.ProcessGroup | None = None) -> None:
        self.rank, self.size, self._group = rank, size, group

    @property
    def first(self) -> bool:
        """Whether this is the process that logs, evaluates and writes."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """The part of the micro-batches that is this process's."""
        return Share(self.rank, self.size)

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value, added up over all processes."""
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(numbers, group=self._group)
        return numbers.tolist()

    def scalars(self, scalars: Scalars) -> Scalars:
        """The same of named scalars, which keep their types and devices. All processes give the same names."""
        if self.size == 1:
            return scalars
        values = self.total([float(value) for value in scalars.values()])
        return {name: torch.tensor(new).to(old) for (name, old), new in zip(scalars.items(), values, strict=True)}

    def largest(self, value: int) -> int:
        """The largest of all processes' values."""
        if self.size == 1:
            return value
        number = torch.tensor(value)
        dist.all_reduce(number, dist.ReduceOp.MAX, group=self._group)
        return int(number)

    def told(self, value: float) -> float:
        """The first process's value."""
        return self.total([value if self.first else 0.0])[0]

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier(group=self._group)

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """A block that the first process runs before the others: it makes files, and they find them."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by the sum over all processes; one that no process has stays None."""
        if self.size == 1:
            return
        used = self.total([float(parameter.grad is not None) for parameter in parameters])
        gradients = []
        for parameter, count in zip(parameters, used, strict=True):
            if count:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, part in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))


@functools.cache
def team() -> Team:
    """The processes this one belongs to; they find each other at the first call.

    Raises:
        InputError: more processes on this machine than it has GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Team()
    backend = "gloo"
    if torch.cuda.is_available():
        local, devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= devices:
            raise InputError(f"process {local + 1} of this machine has no GPU of its own; give --nproc-per-node {devices}")
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    store, rank, size = next(rendezvous("env://"))
    store = dist.PrefixStore(_agreed(store, rank, size), store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    atexit.register(_leave)
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    assert isinstance(group, dist.ProcessGroup)
    return Team(dist.get_rank(), dist.get_world_size(), group)


def _agreed(store: Any, rank: int, size: int) -> str:
    """A name that the processes of this start alone know.

    After a failure torchrun starts all of them again with the store of those before, in which the addresses of the dead
    still stand. What is asked for by a fresh name is fresh: the others ask, the first answers until all have heard.
    """
    name = uuid.uuid4().hex
    if rank:
        store.set(f"asked/{rank}", name)
        agreed = store.get(f"answer/{name}").decode()
        store.set(f"heard/{agreed}/{rank}", "yes")
        return agreed
    silent = set(range(1, size))
    until = time.monotonic() + dist.default_pg_timeout.total_seconds()
    while silent := {other for other in silent if not store.check([f"heard/{name}/{other}"])}:
        for other in silent:
            if store.check([f"asked/{other}"]):
                store.set(f"answer/{store.get(f'asked/{other}').decode()}", name)
        if time.monotonic() > until:
            raise InputError(f"processes {sorted(silent)} of {size} have not come; see whether all machines run the command")
        time.sleep(0.02)
    return name


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _buckets(gradients: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Neighbours of one type, `_BUCKET` bytes together or a single larger one."""
    bucket: list[torch.Tensor] = []
    for gradient in gradients:
        full = sum(one.nbytes for one in bucket) + gradient.nbytes > _BUCKET
        if bucket and (full or bucket[0].dtype != gradient.dtype or bucket[0].device != gradient.device):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
