"""What a verb shows: results on stdout; warnings, errors and progress on stderr, a line each."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO, runtime_checkable

import typer

from bothways.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from bothways.training.sections import Table

# Names a file that a run leaves for `launch` when it has saved after a SIGTERM: torchrun does not say how its processes ended
PREEMPTED = "BOTHWAYS_PREEMPTED"


def show(data: Mapping[str, Any], text: str, as_json: bool) -> None:
    """The result of a verb, as JSON or for people; where torchrun has started several processes, the first one speaks."""
    if _first():
        print(json.dumps(data, indent=2, ensure_ascii=False) if as_json else text)


def note(text: str) -> None:
    """A line for people beside the result."""
    if _first():
        print(text, file=sys.stderr)


def drawn(table: Table) -> str:
    """A table as the lines that a terminal shows of it, without the blanks behind them."""
    from rich.console import Console

    from bothways.evaluation.table import to_rich

    console = Console(highlight=False)
    with console.capture() as shown:
        console.print(to_rich(table))
    return "\n".join(line.rstrip() for line in shown.get().splitlines())


def aligned(rows: Mapping[str, str]) -> str:
    """Names and values in two columns; in a terminal, long values go on below themselves."""
    width = max(map(len, rows))
    room = max(shutil.get_terminal_size().columns - width - 2, 30) if sys.stdout.isatty() else None
    lines: list[str] = []
    for name, value in rows.items():
        pieces = [value] if room is None else textwrap.wrap(value, room, break_on_hyphens=False, break_long_words=False) or [""]
        lines += [f"{name if not number else '':<{width}}  {piece}".rstrip() for number, piece in enumerate(pieces)]
    return "\n".join(lines)


def explained(error: Exception) -> str | None:
    """The line for an error that the user can mend; None for any other."""
    if isinstance(error, InputError | MissingExtraError):
        return _one_line(str(error))
    if isinstance(error, OSError) and error.strerror:
        return _one_line(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    import pydantic

    if isinstance(error, pydantic.ValidationError):
        from bothways.config import explain

        return _one_line(f"{error.title}: {explain(error, object)}")
    return None


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Within the block, warnings meant for users are one line on stderr each; those for programmers are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show_warning
        yield


@runtime_checkable
class Advance(Protocol):
    """Told of each batch."""

    def __call__(self, sequences: int, tokens: int) -> None: ...


@contextmanager
def progress(total: int | None, unit: str, terminal: bool | None = None) -> Iterator[Advance]:
    """A bar on stderr, with rate and time left, where stderr is a terminal.

    Yields a function that is told of each batch: `sequences` done of `total`, and `tokens` (or what `unit` names),
    of which the rate is shown. Where `total` is None, not known, they are counted alone.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, force_terminal=terminal)
    columns = (
        BarColumn(),
        TextColumn("{task.completed:,}{task.fields[of]}"),
        TextColumn("{task.fields[rate]}"),
        *(() if total is None else (TimeRemainingColumn(), TextColumn("left"))),
    )
    start, done = time.monotonic(), 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, of="" if total is None else f"/{total:,}", rate="")

        def advance(sequences: int, tokens: int) -> None:
            nonlocal done
            done += tokens
            rate = done / max(time.monotonic() - start, 1e-6)
            bar.update(task, advance=sequences, rate=f"{rate:,.0f} {unit}/s")

        yield advance


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    note(f"warning: {_one_line(str(message))}")


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


@contextmanager
def stoppable() -> Iterator[None]:
    """Work that the same command goes on with says so when it is interrupted, without a traceback.

    Ctrl-C is no success: exit code 1. A SIGTERM that all was saved after is what a scheduler asked for: 0.
    """
    from bothways.training.interrupt import Interrupted

    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        said = stop if isinstance(stop, Interrupted) else "interrupted; the same command goes on"
        note(f"{said}:\n  {command()}")
        preempted = isinstance(stop, Interrupted) and stop.preempted
        if preempted and _first() and (told := os.environ.get(PREEMPTED)):
            Path(told).touch()
        raise typer.Exit(0 if preempted else 1) from None


def command() -> str:
    """The command as it was given, without the secrets of a URL."""
    import shlex

    from bothways.evaluation.secrets import redacted_words

    return shlex.join([*_launcher(), *map(redacted_words, sys.argv[1:])])


def _launcher() -> list[str]:
    """What starts the command: for several processes, torchrun with as many on as many machines."""
    processes, here = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if processes == 1:
        return ["bothways"]
    machines = [] if processes == here else ["--nnodes", str(processes // here)]
    return ["torchrun", *machines, "--nproc-per-node", str(here), "-m", "bothways"]


def _first() -> bool:
    return os.environ.get("RANK", "0") == "0"
