"""`bothways launch`: a verb in several processes of this machine, by torchrun."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bothways.cli.options import examples
from bothways.cli.output import PREEMPTED

_EXAMPLES = examples("bothways launch --processes 2 pretrain my_texts/ --out runs/mine --hours 1")


def register(app: typer.Typer) -> None:
    # what stands behind the verb's name is the verb's
    app.command(epilog=_EXAMPLES, context_settings={"allow_interspersed_args": False})(launch)


def launch(
    words: Annotated[list[str], typer.Argument(metavar="VERB...", help="pretrain or finetune, with all that belongs to it.")],
    processes: Annotated[str, typer.Option("--processes", help="How many; gpu: one for each.")] = "gpu",
    restarts: Annotated[int, typer.Option("--restarts", min=0, help="How often to start again when a process dies.")] = 3,
    patience: Annotated[int, typer.Option("--patience", min=1, help="Seconds that a SIGTERM leaves for saving.")] = 300,
) -> None:
    """Run a verb in several processes of this machine; a SIGTERM saves and ends with 0, where torchrun's own code is 1."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.run import main

    options = {"nproc-per-node": processes, "max-restarts": restarts, "shutdown-timeout": patience}
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "preempted"
        os.environ[PREEMPTED] = str(told)
        try:
            main(["--standalone", *(f"--{name}={value}" for name, value in options.items()), "-m", "bothways", *words])
        except SignalException as stop:
            raise typer.Exit(0 if stop.sigval == signal.SIGTERM and told.exists() else 1) from None
