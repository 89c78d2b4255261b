"""`bothways compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bothways.cli.options import JsonOption, examples
from bothways.cli.output import command, note, show
from bothways.errors import InputError

if TYPE_CHECKING:
    from bothways.training.compare import Comparison

_EXAMPLES = examples(
    "bothways compare runs/adamw runs/muon --out compared.html",
    "bothways compare runs/* --levels 6,5,4.5",
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(compare)


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="The folders of two runs or more; what is no run is left out, and named."),
    ],
    out: Annotated[Path | None, typer.Option("--out", metavar="PAGE.html", help="Write a page with the curves, too.")] = None,
    levels: Annotated[
        str | None, typer.Option("--levels", metavar="LOSS,...", help="Losses whose tokens and times are compared.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare training runs: settings that differ, final figures, tokens and time to a loss; and curves on one page."""
    from bothways.training.compare import compare as look
    from bothways.training.compare import page

    if out is not None and (out.suffix != ".html" or out.is_dir()):
        raise InputError(f"--out {out}: name a file that ends in .html")
    found = look(runs, _numbers(levels))
    told(found, as_json)
    if out is not None:
        note(f"the page, with the curves: {page(found, out, command())}")


def told(found: Comparison, as_json: bool) -> None:
    """A comparison's tables, for people or as JSON."""
    from rich.console import Console

    from bothways.evaluation.table import to_rich

    if as_json:
        return show(_data(found), "", as_json=True)
    console = Console()
    for table in (found.figures, found.reached, found.differences):
        shown = to_rich(table)
        shown.columns[0].no_wrap = True
        console.print(shown)
        console.print()
    return None


def _data(found: Comparison) -> dict[str, Any]:
    from bothways.evaluation.table import to_json

    names = [run.name for run in found.runs]
    reached = {
        f"{level:g}": {
            name: None if one is None else {"tokens": round(one[0]), "seconds": round(one[1], 3)}
            for name, one in zip(names, places, strict=True)
        }
        for level, places in found.crossings.items()
    }
    return {"figures": to_json(found.figures), "loss": found.which, "reached": reached, "differences": to_json(found.differences)}


def _numbers(levels: str | None) -> list[float]:
    try:
        return [float(one) for one in levels.split(",")] if levels else []
    except ValueError:
        raise typer.BadParameter(f"--levels {levels}: expected numbers with commas between") from None
