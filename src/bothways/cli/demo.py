"""`bothways demo`: the whole job, on text every machine with Python has."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from bothways.cli.options import examples
from bothways.cli.output import note, stoppable

_EXAMPLES = examples("bothways demo", "bothways demo --out /tmp/demo")


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(demo)


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the demo works; started again, it goes on.")] = Path(
        "demo"
    ),
) -> None:
    """Train a tokenizer and a small encoder, fine-tune it, make it an embedder, search with it: ten minutes."""
    from rich.console import Console

    from bothways.evaluation.table import to_rich
    from bothways.recipes.demo import demo as carry_out

    with stoppable():
        outcome = carry_out(out, note)
    console = Console()
    console.print(to_rich(outcome.results))
    for question, answers in groupby(outcome.answers.rows, key=lambda row: row[0]):
        console.print(f"\n{question}", style="bold", markup=False)
        for _, function, docstring in answers:
            console.print(f"  {function}: {docstring}", no_wrap=True, overflow="ellipsis", markup=False)
    console.print()
    console.print(f"The report, with the curves: {outcome.report}", soft_wrap=True)
    console.print("Your own text next:          bothways pretrain my_texts/ --out runs/mine --hours 1", soft_wrap=True)
