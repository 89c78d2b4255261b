"""From a data set and a plan to a stream of inputs, prepared by any number of worker processes.

The plan decides which samples each input holds; workers only read and prepare them, and inputs come out
in the plan's order. So the stream is the same for any number of workers, and goes on from any of its states.
Where several processes train together, each has a stream of all inputs, but prepares its share alone.
"""

from __future__ import annotations

import atexit
import signal
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import tee
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader

from bothways.data.packing import Plan, SampleCount, TokenBudget
from bothways.data.sample import Sample, Samples
from bothways.errors import InputError

I = TypeVar("I")  # noqa: E741
T = TypeVar("T")

Prepare = Callable[[list[Sample], int, int], I]
"""(samples, seed, epoch) -> an objective's input. Pure; picklable where worker processes are not forked."""

Task = tuple[dict[str, int], np.ndarray]
"""The state of a stream behind an input, and the numbers of the input's samples."""

# Inputs each worker prepares ahead of their use
_AHEAD = 4
# DataLoader's iterators in use, and the worker processes of all of them
_OPEN: weakref.WeakSet[Any] = weakref.WeakSet()
_PROCESSES: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


@dataclass(frozen=True)
class Share:
    """Every `of`-th input from number `place` on, counted from where a stream is opened."""

    place: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.place < self.of:
            raise ValueError(f"{self}: a place is at least 0 and below `of`")

    def holds(self, number: int) -> bool:
        return number % self.of == self.place


WHOLE = Share()


class Stream(Generic[I]):
    """Inputs without end, epoch after epoch, that knows where it stands. None stands for one of another share."""

    def __init__(self, inputs: Iterator[tuple[dict[str, int], I | None]], state: dict[str, int]) -> None:
        self._inputs = inputs
        self._state = state

    def __iter__(self) -> Stream[I]:
        return self

    def __next__(self) -> I | None:
        try:
            self._state, inputs = next(self._inputs)
        except InputError:
            self.close()  # now: collected later, together with the traceback, workers take seconds to end
            raise
        return inputs

    def state(self) -> dict[str, int]:
        """The position behind the last input handed out, however far the workers are ahead."""
        return dict(self._state)

    def close(self) -> None:
        """End the worker processes."""
        self._inputs = iter(())


class Loader(Generic[I]):
    """A data set in batches, prepared for an objective.

    Attributes:
        plan: which samples each batch holds.
    """

    def __init__(
        self, data: Samples, batching: TokenBudget | SampleCount, prepare: Prepare[I], seed: int, workers: int = 0
    ) -> None:
        """Plan the batches. `workers` processes prepare them, one thread each; 0 prepares in this process, when asked.

        Raises:
            InputError: as `Plan`; or a negative number of workers.
        """
        if workers < 0:
            raise InputError(f"workers={workers}: must be 0 or more")
        self.plan = Plan(np.asarray(data.lengths), batching, seed)
        self._prepared = _Prepared(data, prepare, seed)
        self._workers = workers

    def open(self, state: dict[str, int] | None = None, share: Share = WHOLE) -> Stream[I]:
        """The stream from its beginning, or from a state of a stream of the same plan, with the inputs of a share.

        States are the same for all shares, so that a run may go on with another number of processes.

        Raises:
            InputError: a state of another plan (other data, batching or seed), or none that a stream gives.
        """
        plan = self.plan.fingerprint
        start = {"epoch": 0, "window": 0, "batch": 0, "plan": plan} if state is None else state
        if start.keys() != {"epoch", "window", "batch", "plan"} or min(start.values()) < 0:
            raise InputError(f"{start}: not the position of a stream")
        if start["plan"] != plan:
            raise InputError("the data, the batching or the seed is not that of the saved position: it cannot be continued")
        own, tasks = tee(_endless(self.plan, start))
        inputs = self._run(task for number, task in enumerate(own) if share.holds(number))
        return Stream(_dealt(tasks, inputs, share), start)

    def evaluation(self) -> Iterator[I]:
        """One pass over all samples, unshuffled and prepared as in epoch 0: the same inputs each time."""
        tasks = (({"epoch": 0}, batch) for batch in self.plan.in_order())
        return (inputs for _, inputs in self._run(tasks))

    def _run(self, tasks: Iterator[Task]) -> Iterator[tuple[dict[str, int], I]]:
        if self._workers == 0:
            return map(_unless_fault, map(self._prepared.__getitem__, tasks))
        loader: Iterable[Any] = DataLoader(
            self._prepared,  # type: ignore[arg-type]
            sampler=tasks,  # type: ignore[arg-type]
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self._workers,
            prefetch_factor=_AHEAD,
            worker_init_fn=_begin,
            generator=torch.Generator(),  # else it would draw from the global one, which dropout uses
        )
        inputs: Any = iter(loader)
        _OPEN.add(inputs)
        _PROCESSES.update(inputs._workers)
        return map(_unless_fault, inputs)


class _Prepared(Generic[I]):
    """What a worker runs: a task in, the same state and the prepared input out."""

    def __init__(self, data: Samples, prepare: Prepare[I], seed: int) -> None:
        self._data, self._prepare, self._seed = data, prepare, seed

    def __getitem__(self, task: Task) -> tuple[dict[str, int], I] | InputError:
        state, numbers = task
        try:
            return state, self._prepare([self._data[int(number)] for number in numbers], self._seed, state["epoch"])
        except InputError as error:  # raised in a worker, it would come out wrapped in a page of traceback
            return error


def _endless(plan: Plan, start: dict[str, int]) -> Iterator[Task]:
    """The batches of all epochs from a position on, each with the position behind it."""
    number, window, batch = start["epoch"], start["window"], start["batch"]
    while True:
        epoch = plan.epoch(number)
        while window < epoch.windows:
            batches = epoch.window(window)
            for place in range(batch, len(batches)):
                yield {**start, "epoch": number, "window": window, "batch": place + 1}, batches[place]
            window, batch = window + 1, 0
        number, window = number + 1, 0


def _dealt(
    tasks: Iterator[Task], inputs: Iterator[tuple[dict[str, int], I]], share: Share
) -> Iterator[tuple[dict[str, int], I | None]]:
    for number, (state, _) in enumerate(tasks):
        yield next(inputs) if share.holds(number) else (state, None)


def _unless_fault(item: T | InputError) -> T:
    if isinstance(item, InputError):
        raise item
    return item


def _as_it_is(item: T) -> T:
    return item


def _begin(worker: int) -> None:
    # Ctrl-C, `timeout` and batch systems signal all processes; the main one finishes its step, saves and ends the workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    # else multiprocessing would at exit send them a SIGTERM and wait for ever
    for inputs in list(_OPEN):
        inputs._shutdown_workers()
    for worker in list(_PROCESSES):
        worker.kill()
