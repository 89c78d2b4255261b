"""Ctrl-C and SIGTERM: finish the step, save, and say how to go on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from bothways.training.team import Team


class Interrupted(Exception):
    """Training was asked to stop; `checkpoint` (None before the first step) holds all of it.

    Attributes:
        preempted: asked by SIGTERM, as a scheduler does that takes the machine away, and not by Ctrl-C.
    """

    def __init__(self, folder: Path, step: int, checkpoint: Path | None, preempted: bool = False) -> None:
        self.folder, self.step, self.checkpoint, self.preempted = folder, step, checkpoint, preempted
        saved = f"saved {checkpoint}" if checkpoint else "nothing to save yet"
        super().__init__(f"stopped after step {step}, {saved}; the same command goes on from there")


class Asked:
    """Whether any process was asked to stop. A call is true from the same step on in all of them; all must call it."""

    def __init__(self, team: Team) -> None:
        self._team, self.number = team, 0

    def __call__(self) -> bool:
        self.number = self._team.largest(self.number)
        return self.number > 0

    @property
    def preempted(self) -> bool:
        return self.number == signal.SIGTERM


@contextlib.contextmanager
def asked_to_stop(announce: Callable[[str], None], team: Team | None = None) -> Iterator[Asked]:
    """Within the block, the first SIGINT or SIGTERM only makes what is yielded true; a second one acts as usual.

    Under torchrun a second one does nothing: the terminal or the scheduler sends one, and torchrun passes its own on.
    Outside the main thread, where Python delivers no signals, it stays false.
    """
    asked = Asked(team or Team())
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    previous: dict[int, signal._HANDLER] = {}
    launched = "TORCHELASTIC_RUN_ID" in os.environ

    def restore() -> None:
        while previous:
            signal.signal(*previous.popitem())

    def handle(number: int, _frame: FrameType | None) -> None:
        first, asked.number = asked.number == 0, asked.number or number
        if not launched:
            restore()
        if first:
            announce("stopping after this step" + ("" if launched else "; once more stops at once, without saving"))

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, handle)
    try:
        yield asked
    finally:
        restore()
