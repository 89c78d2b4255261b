"""`bothways ladder`: a published ladder of ablation, rung by rung, and what each rung is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bothways.cli.options import ColumnOption, JsonOption, examples
from bothways.cli.output import aligned, command, note, show, stoppable
from bothways.cli.train import HoursOption, OutOption, StepsOption, TokensOption, chosen_budget

if TYPE_CHECKING:
    from bothways.recipes.ladders import Ladder

# The same as `LADDERS`, which would take a second to import
LadderName = Literal["neobert", "mosaicbert"]

_EXAMPLES = examples(
    "bothways ladder neobert corpus.jsonl --tokens 2000000 --out runs/neobert",
    "bothways ladder neobert corpus.jsonl --better curated/data --tokens 2000000 --out runs/neobert",
    "bothways ladder mosaicbert corpus.jsonl --size mini --tokens 20000000 --out runs/mosaicbert",
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(ladder)


def ladder(
    name: Annotated[LadderName, typer.Argument(metavar="LADDER", help="neobert (M0 to M8) or mosaicbert (its components).")],
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Text, as `pretrain` reads it.")],
    out: OutOption,
    better: Annotated[Path | None, typer.Option("--better", metavar="PATH", help="The better text of NeoBERT's M2.")] = None,
    size: Annotated[Literal["toy", "tiny", "mini", "base"], typer.Option("--size", help="base is the paper's.")] = "tiny",
    column: ColumnOption = "text",
    hours: HoursOption = None,
    tokens: TokensOption = None,
    steps: StepsOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the rungs, and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a ladder of runs, each of which changes one thing, with the same budget for all; and compare them.

    Ctrl-C saves; the same command goes on from there. OUT/compared.html has the curves.
    """
    from bothways.cli.compare import told
    from bothways.recipes.climbing import climb
    from bothways.recipes.corpus import open_text
    from bothways.recipes.ladders import LADDERS
    from bothways.training.compare import compare, page

    if better is not None and name != "neobert":
        raise typer.BadParameter("--better is NeoBERT's second text; the other ladder has one")
    second = None if better is None else open_text(better, column).source
    rungs = LADDERS[name](open_text(corpus, column).source, chosen_budget(hours, tokens, steps), size, second)
    if dry_run:
        return _list(rungs, as_json)
    with stoppable():
        found = compare(climb(rungs, out, note))
    told(found, as_json)
    note(f"the page, with the curves: {page(found, out / 'compared.html', command())}")


def _list(rungs: Ladder, as_json: bool) -> None:
    data = {one.name: {"above": one.above, "change": one.change} for one in rungs}
    lines = {one.name: one.change + (f" (above {one.above})" if one.above else "") for one in rungs}
    show(data, aligned(lines), as_json)
