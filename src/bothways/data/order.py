"""Which sample follows which: without end, in stretches called epochs, as a function of the seed alone."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from bothways.data.sample import Epochs


@dataclass(frozen=True, eq=False)
class Drawn:
    """Samples in the order they are taken.

    Attributes:
        samples: int64 [drawn], their numbers.
        epochs: in which pass over its source each is taken, from 0; one number where all are in the same.
    """

    samples: Int[np.ndarray, " drawn"]
    epochs: Epochs

    def __len__(self) -> int:
        return len(self.samples)

    def at(self, places: Int[np.ndarray, " chosen"]) -> Drawn:
        """The samples at some places of this order."""
        return Drawn(self.samples[places], self.epochs if isinstance(self.epochs, int) else self.epochs[places])


@runtime_checkable
class Order(Protocol):
    """An endless sequence of samples."""

    def draw(self, seed: int | None, epoch: int) -> Drawn:
        """The samples of an epoch; without a seed, unshuffled."""
        ...

    def tokens_before(self, epoch: int) -> int:
        """How many tokens come before an epoch, to within a sample of each source."""
        ...

    def fingerprint(self, start: int) -> int:
        """A checksum, going on from `start`, of what decides the order beside the samples' lengths and the seed."""
        ...


@dataclass(frozen=True, eq=False)
class Shuffled:
    """One source: every epoch is a pass over all samples, in an order of its own."""

    lengths: Int[np.ndarray, " samples"]

    def draw(self, seed: int | None, epoch: int) -> Drawn:
        return Drawn(permutation(seed, len(self.lengths), epoch), epoch)

    def tokens_before(self, epoch: int) -> int:
        return epoch * int(self.lengths.sum(dtype=np.int64))

    def fingerprint(self, start: int) -> int:
        return start


def permutation(seed: int | None, count: int, *path: int) -> Int[np.ndarray, " count"]:
    """The numbers below `count`, in the order that a seed and a path have; without a seed, ascending."""
    return np.arange(count) if seed is None else generator(seed, *path).permutation(count)


def generator(seed: int, *path: int) -> np.random.Generator:
    """A generator for one place alone: no two paths share their numbers."""
    # PCG64DXSM: ModernBERT (2412.13663) saw a bias in torch's own sampler after half a billion samples
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=path)))


def checksum(text: str, start: int) -> int:
    """CRC-32 of a text, going on from `start`."""
    return zlib.crc32(text.encode(), start)
