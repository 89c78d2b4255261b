"""What stays outside compiled graphs: functions that read lengths on the host, which are other numbers in every batch.

A graph that holds such a number is compiled anew for each of its values. So a graph ends before such a function, and the
next one begins behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def outside(run: Callable[..., T], *args: object) -> T:
    """Call a function, outside any graph that is being compiled once `leave_out` has been called."""
    return _call(run, *args)


def leave_out() -> None:
    """To be called before anything is compiled: it imports torch's compiler, which takes a second."""
    global _call
    if _call is _plain:
        _call = torch.compiler.disable(_plain)


def _plain(run: Callable[..., T], *args: object) -> T:
    return run(*args)


_call: Callable[..., Any] = _plain
