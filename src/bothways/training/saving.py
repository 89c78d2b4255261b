"""Checkpoints written while training goes on: the loop waits for the copy in memory, a thread for the disk."""

from __future__ import annotations

import threading
from pathlib import Path

from bothways.training import checkpoint
from bothways.training.checkpoint import Snapshot


class Saver:
    """Writes one snapshot at a time; a next one waits for the one before.

    What goes wrong in the thread is raised by the next `save`, `check` or `wait`.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, saved: Snapshot) -> None:
        """Begin to write. Raises InputError where the one before could not be written."""
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(saved,), name="checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raise what has gone wrong so far, without waiting."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Until all is on the disk. Raises InputError where it could not be written."""
        self.close()
        self.check()

    def close(self) -> None:
        """Until the thread has ended, well or not."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, saved: Snapshot) -> None:
        try:
            checkpoint.write(self._folder, saved, self._keep)
        except BaseException as error:  # raised again where the loop looks
            self._error = error
