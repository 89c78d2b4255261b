"""Processes that do not outlive the command they work for, even where it is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNAL_WHEN_PARENT_DIES = 1  # prctl's PR_SET_PDEATHSIG
_commands: set[int] = set()


def die_with_parent() -> None:
    """From now on the kernel (Linux's; elsewhere nobody) kills this process when its parent ends.

    A killed command does not stop its workers: left alone, one would work on beside those of the next try.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_DIES, signal.SIGKILL)


@contextmanager
def children_die_with_us() -> Iterator[None]:
    """Within the block, whatever this process forks dies with it: the server that datatrove's local executor starts does not."""
    if not _commands:
        os.register_at_fork(after_in_child=_forked)  # cannot be taken back; it looks whether a block is open
        _commands.add(0)
    _commands.add(os.getpid())
    try:
        yield
    finally:
        _commands.discard(os.getpid())


def _forked() -> None:
    if os.getppid() in _commands:
        die_with_parent()
