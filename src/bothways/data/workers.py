"""Work handed to other processes, its results in the order of the tasks: whatever the number of workers, the same."""

from __future__ import annotations

import atexit
import os
import signal
import weakref
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from bothways.errors import InputError

A = TypeVar("A")
R = TypeVar("R")

# Tasks each worker is ahead of what is asked for
_AHEAD = 4
# DataLoader's iterators in use, and the worker processes of all of them
_OPEN: weakref.WeakSet[Any] = weakref.WeakSet()
_PROCESSES: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


def in_order(function: Callable[[A], R], tasks: Iterator[A], workers: int) -> Iterator[R]:
    """`function` of each task, computed by worker processes of one thread each; with 0 workers in this one, when asked.

    The workers end when the iterator is collected, and when this process ends, in whatever way.

    Args:
        function: can be sent to a process where those are not forked; torch tensors in its results travel in shared memory.

    Raises:
        InputError: the function's own, as it was raised.
    """
    answers = _Answers(function)
    if workers == 0:
        return map(_unless_fault, map(answers.__getitem__, tasks))
    import torch
    from torch.utils.data import DataLoader

    loader: Iterable[Any] = DataLoader(
        answers,  # type: ignore[arg-type]
        sampler=tasks,  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        worker_init_fn=_begin,
        generator=torch.Generator(),  # else it would draw from the global one, which dropout uses
    )
    running: Any = iter(loader)
    _OPEN.add(running)
    _PROCESSES.update(running._workers)
    return map(_unless_fault, running)


class _Answers(Generic[A, R]):
    """The function as a data set whose indices are tasks; an `InputError` is an answer too."""

    def __init__(self, function: Callable[[A], R]) -> None:
        self._function = function

    def __getitem__(self, task: A) -> R | InputError:
        try:
            return self._function(task)
        except InputError as error:  # raised in a worker, it would come out wrapped in a page of traceback
            return error


def _unless_fault(item: R | InputError) -> R:
    if isinstance(item, InputError):
        raise item
    return item


def _as_it_is(item: R) -> R:
    return item


def _begin(worker: int) -> None:
    # Ctrl-C, `timeout` and batch systems signal all processes; the main one finishes its step, saves and ends the workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not survive a fork, and it would warn of that


@atexit.register
def _end_workers() -> None:
    # else multiprocessing would at exit send them a SIGTERM and wait for ever
    for running in list(_OPEN):
        running._shutdown_workers()
    for worker in list(_PROCESSES):
        worker.kill()
