"""Processes that do not outlive the command they work for, even where it is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNAL_WHEN_PARENT_DIES = 1  # prctl's PR_SET_PDEATHSIG
_commands: set[int] = set()
_forking = [0]  # the process that forks: a child asks for its parent, who may be dead by then


def die_with_parent(lives: Callable[[], bool]) -> None:
    """From now on the kernel (Linux's; elsewhere nobody) kills this process when its parent ends.

    A killed command does not stop its workers: left alone, one would work on beside those of the next try.

    Args:
        lives: whether the parent has not ended yet, in which case no signal would come any more.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_DIES, signal.SIGKILL)
    if not lives():
        os._exit(1)


@contextmanager
def children_die_with_us() -> Iterator[None]:
    """Within the block, whatever this process forks dies with it: the server that datatrove's local executor starts does not."""
    if not _commands:
        os.register_at_fork(before=_about_to_fork, after_in_child=_forked)  # for good; they look whether a block is open
        _commands.add(0)
    _commands.add(os.getpid())
    try:
        yield
    finally:
        _commands.discard(os.getpid())


def _about_to_fork() -> None:
    _forking[0] = os.getpid()


def _forked() -> None:
    parent = _forking[0]
    if parent in _commands:
        die_with_parent(lambda: os.getppid() == parent)
