"""From a data set and a plan to a stream of inputs, prepared by any number of worker processes.

The plan decides which samples each input holds; workers only read and prepare them, and inputs come out
in the plan's order. So the stream is the same for any number of workers, and goes on from any of its states.
Where several processes train together, each has a stream of all inputs, but prepares its share alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from itertools import tee
from typing import Generic, Protocol, TypeVar, cast, runtime_checkable

import numpy as np

from bothways.data.order import Drawn, Order
from bothways.data.packing import Plan, SampleCount, TokenBudget, capacity
from bothways.data.sample import Epochs, Sample, Samples
from bothways.data.workers import in_order
from bothways.errors import InputError
from bothways.ragged import Capacity

I = TypeVar("I")  # noqa: E741
I_co = TypeVar("I_co", covariant=True)
Prepare = Callable[[list[Sample], int, Epochs], I]
"""(samples, seed, epoch or the epoch of each) -> an objective's input. Pure; picklable where processes are not forked."""

Task = tuple[dict[str, int], Drawn, int]
"""The state of a stream behind an input, the input's samples, and the tokens of the stream before it."""


@runtime_checkable
class Scheduled(Protocol[I_co]):
    """A `prepare` that changes while a stream goes on (a mask rate that falls)."""

    def behind(self, tokens: int) -> Callable[[list[Sample], int, Epochs], I_co]:
        """What prepares an input that has so many tokens of its stream before it. Pure, as it is."""
        ...


@runtime_checkable
class Fillable(Protocol):
    """Inputs that can end in filler."""

    def to_capacity(self, capacity: Capacity) -> Fillable: ...


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
        capacity: what every batch is brought to; None: as large as it happens to be.
    """

    def __init__(
        self,
        data: Samples,
        batching: TokenBudget | SampleCount,
        prepare: Prepare[I],
        seed: int,
        workers: int = 0,
        order: Order | None = None,
        fixed: bool = False,
    ) -> None:
        """Plan the batches. `workers` processes prepare them, one thread each; 0 prepares in this process, when asked.

        Args:
            order: which samples follow which; None: epochs of all samples, shuffled.
            fixed: every batch is brought to the same shape by filler at its end (`capacity`).

        Raises:
            InputError: as `Plan`, and where `fixed` as `capacity`; or a negative number of workers.
        """
        if workers < 0:
            raise InputError(f"workers={workers}: must be 0 or more")
        self.plan = Plan(np.asarray(data.lengths), batching, seed, order)
        self.capacity = capacity(self.plan.lengths, batching) if fixed else None
        self._prepared = _Prepared(data, prepare, seed, self.capacity)
        self._workers = workers

    def open(self, state: dict[str, int] | None = None, share: Share = WHOLE, origin: int = 0) -> Stream[I]:
        """The stream from its beginning, or from a state of a stream of the same plan, with the inputs of a share.

        States are the same for all shares, so that a run may go on with another number of processes.

        Args:
            origin: the tokens of the stream before a stage of the run began: what is scheduled does not count them.

        Raises:
            InputError: a state of another plan (other data, batching or seed), or none that a stream gives.
        """
        plan = self.plan.fingerprint
        start = {"epoch": 0, "window": 0, "batch": 0, "plan": plan} if state is None else state
        if start.keys() != {"epoch", "window", "batch", "plan"} or min(start.values()) < 0:
            raise InputError(f"{start}: not the position of a stream")
        if start["plan"] != plan:
            raise InputError("the data, the batching or the seed is not that of the saved position: it cannot be continued")
        own, tasks = tee(_endless(self.plan, start, origin))
        mine = (task for number, task in enumerate(own) if share.holds(number))
        return Stream(_dealt(tasks, in_order(self._prepared, mine, self._workers), share), start)

    def preparing(self, prepare: Prepare[I]) -> Loader[I]:
        """The same batches, prepared by another."""
        made = copy(self)
        made._prepared = replace(self._prepared, prepare=prepare)
        return made

    def tokens_before(self, state: dict[str, int]) -> int:
        """The tokens of the stream up to one of its states."""
        epoch = self.plan.epoch(state["epoch"])
        return self.plan.tokens_before(state["epoch"]) + epoch.tokens_before(state["window"], state["batch"])

    def after(self, state: dict[str, int]) -> dict[str, int]:
        """Where to open a stream of the same text that goes on from another's state: there, or in the next epoch.

        The next epoch, whose order and masks are new, where the samples or the batches are not those of the state.
        """
        plan = self.plan.fingerprint
        return state if state["plan"] == plan else {"epoch": state["epoch"] + 1, "window": 0, "batch": 0, "plan": plan}

    def evaluation(self) -> Iterator[I]:
        """One epoch, unshuffled and prepared as in epoch 0: the same inputs each time."""
        epoch = self.plan.in_order()
        tasks: Iterator[Task] = (({}, drawn, 0) for window in range(epoch.windows) for drawn in epoch.draws(window))
        return (inputs for _, inputs in in_order(self._prepared, tasks, self._workers))


@dataclass(frozen=True, eq=False)
class _Prepared(Generic[I]):
    """What a worker runs: a task in, the same state and the prepared input out."""

    data: Samples
    prepare: Prepare[I]
    seed: int
    capacity: Capacity | None

    def __call__(self, task: Task) -> tuple[dict[str, int], I]:
        state, drawn, before = task
        prepare = self.prepare.behind(before) if isinstance(self.prepare, Scheduled) else self.prepare
        inputs = prepare([self.data[number] for number in drawn.samples.tolist()], self.seed, drawn.epochs)
        return state, inputs if self.capacity is None else _filled(inputs, self.capacity)


def _filled(inputs: I, capacity: Capacity) -> I:
    """Inputs of one shape."""
    if not isinstance(inputs, Fillable):
        raise InputError(
            f"training.compile: {type(inputs).__name__} cannot end in filler, as batches of one shape do; set it to false"
        )
    return cast(I, inputs.to_capacity(capacity))


def _endless(plan: Plan, start: dict[str, int], origin: int) -> Iterator[Task]:
    """The batches of all epochs from a position on, each with the position behind it."""
    number, window, batch = start["epoch"], start["window"], start["batch"]
    while True:
        epoch = plan.epoch(number)
        before = plan.tokens_before(number) + epoch.tokens_before(window, batch) - origin
        while window < epoch.windows:
            draws = epoch.draws(window)
            for place in range(batch, len(draws)):
                yield {**start, "epoch": number, "window": window, "batch": place + 1}, draws[place], before
                before += int(plan.lengths[draws[place].samples].sum())
            window, batch = window + 1, 0
        number, window = number + 1, 0


def _dealt(
    tasks: Iterator[Task], inputs: Iterator[tuple[dict[str, int], I]], share: Share
) -> Iterator[tuple[dict[str, int], I | None]]:
    for number, (state, *_) in enumerate(tasks):
        yield next(inputs) if share.holds(number) else (state, None)
