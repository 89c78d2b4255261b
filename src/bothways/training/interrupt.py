"""Ctrl-C and SIGTERM: finish the step, save, and say how to go on."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType


class Interrupted(Exception):
    """Training was asked to stop; `checkpoint` (None before the first step) holds all of it."""

    def __init__(self, folder: Path, step: int, checkpoint: Path | None) -> None:
        self.folder, self.step, self.checkpoint = folder, step, checkpoint
        saved = f"saved {checkpoint}" if checkpoint else "nothing to save yet"
        super().__init__(f"stopped after step {step}, {saved}; the same command goes on from there")


@contextlib.contextmanager
def asked_to_stop(announce: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Within the block, the first SIGINT or SIGTERM only makes the yielded function true; a second one acts as usual.

    Outside the main thread, where Python delivers no signals, it stays false.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    previous: dict[int, signal._HANDLER] = {}

    def restore() -> None:
        while previous:
            signal.signal(*previous.popitem())

    def handle(_number: int, _frame: FrameType | None) -> None:
        restore()
        asked.set()
        announce("stopping after this step; once more stops at once, without saving")

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, handle)
    try:
        yield asked.is_set
    finally:
        restore()
