"""What each process of a test runs: the toy, spread as asked; see test_distributed.py.

together.py FOLDER PARALLEL [KEY=VALUE...]
    accumulate, steps    of the run
    kill                 the step behind which process 1 dies, once: where the file `killed` is not in FOLDER yet
    term                 the step behind which torchrun, or a process alone, is sent a SIGTERM
    dropout              of the toy
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from toy import Rows, Stream, Toy, run

from bothways.data.loader import WHOLE, Share
from bothways.training.distributed import Replicate, Shard
from bothways.training.interrupt import Interrupted
from bothways.training.schedule import Steps
from bothways.training.settings import Watch
from bothways.training.team import team


class Shared(Stream):
    """The toy's stream, of which other processes' inputs are left out."""

    def __init__(self, state: dict[str, int] | None, share: Share = WHOLE) -> None:
        super().__init__(state)
        self.share, self.number = share, -1

    def __next__(self) -> Rows | None:
        self.number += 1
        inputs = super().__next__()
        return inputs if self.share.holds(self.number) else None


def main(folder: Path, parallel: str, **options: str) -> None:
    def after(step: int) -> None:
        if team().rank == 1 and step == int(options.get("kill", 0)) and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if team().first and step == int(options.get("term", 0)):
            os.kill(os.getppid() if team().size > 1 else os.getpid(), signal.SIGTERM)
        if team().size > 1 and 0 < int(options.get("term", 0)) <= step:
            time.sleep(0.5)  # torchrun takes a moment to pass it on, and the toy's steps are quick

    module = Toy(dropout=float(options.get("dropout", 0)))
    changes = {
        "parallel": Shard() if parallel == "shard" else Replicate(),
        "accumulate": int(options.get("accumulate", 2)),
        "budget": Steps(count=int(options.get("steps", 20))),
        "log_every": 1,
    }
    looks = options.keys() & {"kill", "term"}
    evaluation = Watch(evaluate=lambda: {"weight": module.embed.weight.detach().double().sum().item()})
    try:
        run(folder, module, changes, open_stream=Shared, watch=evaluation, after_step=after if looks else None)
    except Interrupted as stop:
        print(stop)
        sys.exit(0 if stop.preempted else 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], **dict(one.split("=") for one in sys.argv[3:]))
