"""A script that trains the toy in a folder and kills itself, as `kill -9` would, at a given moment.

killed.py FOLDER after STEP        once so many steps are done
killed.py FOLDER writing NUMBER    when so many files of checkpoints have been flushed
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from toy import run

from bothways.training import checkpoint


def main(folder: str, moment: str, number: int) -> None:
    if moment == "writing":
        checkpoint.sync = _dying(checkpoint.sync, number)
        run(Path(folder))
    else:
        run(Path(folder), after_step=lambda step: _die() if step == number else None)


def _dying(write: Callable[[Path], None], number: int) -> Callable[[Path], None]:
    left = iter(range(number))

    def sync(path: Path) -> None:
        write(path)
        if next(left, None) is None:
            _die()

    return sync


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
