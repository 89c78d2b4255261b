"""A run on a real loader that is killed, as `kill -9` would, in 20 places that seeds decide, and goes on each time.

killed.py FOLDER SEED...    one run a seed, each in a process of its own, then one to the end; prints how many were killed

A seed decides how the run dies: behind one of its next steps, at one of the flushes of a background save, or at a moment
by the clock; and how many workers it has.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from toy import VOCABULARY, Rows, run

from bothways.data.loader import Loader
from bothways.data.packing import SampleCount
from bothways.data.sample import Sample
from bothways.training import checkpoint
from bothways.training.schedule import Steps

STEPS = 150


class Numbers:
    """Samples of 3 to 8 tokens, each a function of its number."""

    lengths = np.random.default_rng(0).integers(3, 9, 400)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Sample:
        ids = np.random.default_rng(number).integers(0, VOCABULARY, self.lengths[number])
        return Sample(number, (ids.astype(np.int32),))


def prepare(samples: Sequence[Sample], seed: int, epoch: int) -> Rows:
    ids = torch.from_numpy(np.concatenate([sample.sequences[0] for sample in samples]).astype(np.int64))
    draw = torch.Generator().manual_seed(1000 * epoch + samples[0].id)
    return Rows(ids, (ids * 3 + 1) % VOCABULARY, torch.rand(len(ids), generator=draw) < 0.5)


def train(folder: Path, workers: int = 0, after_step: Callable[[int], None] | None = None) -> None:
    loader = Loader(Numbers(), SampleCount(samples=4), prepare, seed=0, workers=workers)
    run(folder, changes={"budget": Steps(count=STEPS)}, open_stream=loader.open, after_step=after_step)


def doomed(folder: Path, seed: int) -> None:
    """Go on with the run until it is killed."""
    draw = random.Random(seed)
    workers, moment = seed % 3, draw.choice(["step", "save", "clock"])
    left = draw.randrange(12 if moment == "save" else 6)
    begun: list[int] = []

    def after(step: int) -> None:
        begun.append(step)
        if moment == "clock" and len(begun) == 1:
            threading.Timer(draw.uniform(0, 0.02), die).start()
        if moment == "step" and len(begun) > left:
            die()

    if moment == "save":
        checkpoint.sync = dying(checkpoint.sync, left)
    train(folder, workers, after)


def dying(real: Callable[[Path], None], number: int) -> Callable[[Path], None]:
    left = iter(range(number))

    def sync(path: Path) -> None:
        real(path)
        if next(left, None) is None:
            die()

    return sync


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(folder: Path, seed: int) -> bool:
    child = os.fork()
    if not child:
        doomed(folder, seed)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
    return status != 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(sum([killed(Path(sys.argv[1]), int(seed)) for seed in sys.argv[2:]]))
    train(Path(sys.argv[1]))
