"""The command line: the verbs.

A verb's module is light (typer alone); what it works with is imported when it is called, so that help is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run `bothways` with these arguments (those of the process where None) and return its exit code.

    0: done. 1: interrupted, or something given cannot be used; stderr says what. 2: the command itself is wrong.
    """
    # read when torch is loaded. A waiting thread spins so many rounds before it sleeps: on a machine with other work the
    # default steals the core its partner waits for, and small networks train three times slower (docs/log.md)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    import typer

    from bothways.cli.app import build
    from bothways.cli.output import explained, plain_warnings

    command = typer.main.get_command(build())
    try:
        with plain_warnings():
            command.main(args=list(sys.argv[1:] if argv is None else argv), prog_name="bothways")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except Exception as error:
        line = explained(error)
        if line is None:
            raise  # a fault of ours: the whole traceback is wanted
        print(f"error: {line}", file=sys.stderr)
        return 1
    return 0
