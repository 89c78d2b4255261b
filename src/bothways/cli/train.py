"""`bothways finetune`, and what all verbs that train share."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bothways.cli.options import JsonOption, examples
from bothways.cli.output import command, drawn, note, show, stoppable

if TYPE_CHECKING:
    from bothways.data.table import Contrast, TextPair
    from bothways.recipes.carrying_out import Trained
    from bothways.recipes.runs import Embedding, Finetuning
    from bothways.training.schedule import Hours, Steps, Tokens

_FINETUNE = examples(
    "bothways finetune runs/mine/model reviews.csv --label stars --out runs/reviews --epochs 3",
    "bothways finetune runs/mine/model pairs.tsv --pair question,answer --label match --held-out dev.tsv --out runs/match",
    "bothways finetune runs/mine/model sts.csv --pair a,b --label score --regression --out runs/sts",
    "bothways finetune runs/mine/model pairs.jsonl --contrast anchor,positive --out runs/embedder",
)

OutOption = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The run's folder; the same command goes on with it.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a field of the run: training.optimizer.lr=1e-3.")
]
HoursOption = Annotated[float | None, typer.Option("--hours", min=0.0, help="Train so many hours on this machine.")]
TokensOption = Annotated[int | None, typer.Option("--tokens", min=1, help="Train on so many tokens.")]
StepsOption = Annotated[int | None, typer.Option("--steps", min=1, help="Train so many steps.")]
TokenizerOption = Annotated[
    Path | None, typer.Option("--tokenizer", metavar="FOLDER", help="A tokenizer that exists; default: one is trained.")
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Print the whole run as JSON and stop.")]


def register(app: typer.Typer) -> None:
    app.command(epilog=_FINETUNE)(finetune)


def finetune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A pretrained model: a folder, or the id of a repository.")],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Labelled rows: JSONL, CSV, TSV or Parquet.")],
    out: OutOption,
    text: Annotated[str, typer.Option("--text", metavar="COLUMN", help="The column of the text.")] = "text",
    pair: Annotated[str | None, typer.Option("--pair", metavar="A,B", help="Two columns of text, read together.")] = None,
    contrast: Annotated[
        str | None, typer.Option("--contrast", metavar="A,B[,N...]", help="Train sentence vectors: text, partner, negatives.")
    ] = None,
    label: Annotated[str, typer.Option("--label", metavar="COLUMN", help="The column of the label.")] = "label",
    held_out: Annotated[Path | None, typer.Option("--held-out", metavar="TABLE", help="Rows to evaluate on.")] = None,
    regression: Annotated[bool, typer.Option("--regression", help="The label is a number.")] = False,
    epochs: Annotated[
        float | None, typer.Option("--epochs", min=0.0, help="Passes over the table; 3 where no budget is given.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Rows a step.")] = 32,
    lr: Annotated[
        float, typer.Option("--lr", min=0.0, help="The highest learning rate; a width of 128 wants 3e-4 or more.")
    ] = 5e-5,
    overflow: Annotated[
        Literal["error", "cut"], typer.Option("--overflow", help="Rows too long: refused, or cut and counted.")
    ] = "error",
    hours: HoursOption = None,
    tokens: TokensOption = None,
    steps: StepsOption = None,
    changes: SetOption = None,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a classifier, a regression or a sentence embedder on labelled rows."""
    from bothways.config import override
    from bothways.data.packing import SampleCount
    from bothways.data.rows import open_table
    from bothways.data.table import SingleText
    from bothways.recipes.finetuning import finetune as carry_out
    from bothways.recipes.finetuning import train_embedder
    from bothways.recipes.runs import Embedding, Finetuning
    from bothways.training.optimizer import AdamW
    from bothways.training.schedule import Linear, Steps
    from bothways.training.settings import TrainingConfig

    if contrast is not None and (pair is not None or held_out is not None or regression):
        raise typer.BadParameter("--contrast goes with none of --pair, --held-out and --regression")
    budget = None if (hours, tokens, steps) == (None, None, None) else chosen_budget(hours, tokens, steps)
    by_epochs = budget is None and not sets_budget(changes or [])
    if epochs is not None and not by_epochs:
        raise typer.BadParameter("--epochs goes with none of --hours, --tokens, --steps and --set training.budget")
    # Epochs become steps once `--set` has had its say on the rows and on how many of them a step takes.
    training = TrainingConfig(optimizer=AdamW(lr=lr), schedule=Linear(), budget=budget or Steps(count=1))
    rows, batching = open_table(table), SampleCount(samples=batch)
    run: Embedding | Finetuning
    if contrast is not None:
        run = Embedding(
            model=model, table=rows, columns=_contrast(contrast), batching=batching, training=training, overflow=overflow
        )
    else:
        run = Finetuning(
            model=model,
            table=rows,
            columns=SingleText(text=text, label=label) if pair is None else pair_columns(pair, label),
            held_out=None if held_out is None else open_table(held_out),
            regression=regression,
            batching=batching,
            training=training,
            overflow=overflow,
        )
    run = override(run, changes or [])
    if by_epochs:
        run = replace(run, training=replace(run.training, budget=passes(3.0 if epochs is None else epochs, run)))
    if dry_run:
        return print_run(run)
    with stoppable():
        if isinstance(run, Embedding):
            return tell(train_embedder(run, out, note, command()), as_json)
        return tell(carry_out(run, out, note, command()), as_json)


def chosen_budget(hours: float | None, tokens: int | None, steps: int | None) -> Hours | Tokens | Steps:
    """The one budget that was given."""
    from bothways.training.schedule import Hours, Steps, Tokens

    given = [name for name, value in (("--hours", hours), ("--tokens", tokens), ("--steps", steps)) if value is not None]
    if len(given) != 1:
        raise typer.BadParameter("give one of --hours, --tokens and --steps" + (f", not {' and '.join(given)}" if given else ""))
    if tokens is not None:
        return Tokens(count=tokens)
    return Steps(count=steps) if steps is not None else Hours(hours=float(hours or 0.0))


def sets_budget(changes: list[str]) -> bool:
    """Whether `--set` changes the budget: all of it, a part of it, or what holds it."""
    paths = [change.partition("=")[0].strip() for change in changes]
    return any(path.startswith("training.budget") or path == "training" for path in paths)


def passes(epochs: float, run: Finetuning | Embedding) -> Steps:
    """The steps of so many passes over a run's rows."""
    from bothways.data.table import read_labelled
    from bothways.training.schedule import Steps

    batches = math.ceil(len(read_labelled(run.table, run.columns)) / run.batching.samples)
    return Steps(count=max(round(epochs * batches / run.training.accumulate), 1))


def pair_columns(text: str, label: str) -> TextPair:
    from bothways.data.table import TextPair

    first, second = _names(text, "--pair", 2)
    return TextPair(first=first, second=second, label=label)


def _contrast(text: str) -> Contrast:
    from bothways.data.table import Contrast

    anchor, positive, *negatives = _names(text, "--contrast", None)
    return Contrast(anchor=anchor, positive=positive, negatives=tuple(negatives))


def _names(text: str, option: str, count: int | None) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(names) < 2 or (count is not None and len(names) != count):
        raise typer.BadParameter(
            f"{option} {text}: expected {'two' if count else 'at least two'} column names with a comma between"
        )
    return names


def tell(trained: Trained, as_json: bool) -> None:
    """What came of a run."""
    result = trained.result
    data = {
        "model": str(trained.folder / "model"),
        "report": str(trained.report) if trained.report else None,
        "steps": result.step,
        "tokens": result.tokens,
        **({} if trained.epochs is None else {"epochs": round(trained.epochs, 2)}),
        "seconds": round(result.seconds, 1),
        "loss": result.loss,
        "evaluation": result.evaluation,
        **({} if trained.forgetting is None else {"forgetting": trained.forgetting.data}),
    }
    held = ", ".join(f"{name} {value:.4f}" for name, value in result.evaluation.items())
    epochs = "" if trained.epochs is None else f"{trained.epochs:,.2f} epochs, "
    lines = [
        f"{epochs}{result.step:,} steps, {result.tokens:,} tokens in {result.seconds:,.0f} s; last loss {result.loss:.4f}",
        *([f"held out: {held}"] if held and trained.forgetting is None else []),
        *(["", drawn(trained.forgetting.table), ""] if trained.forgetting else []),
        f"model:  {data['model']}",
        *([f"report: {trained.report}"] if trained.report else []),
    ]
    show(data, "\n".join(lines), as_json)


def print_run(run: object) -> None:
    """A whole run as JSON, which `pretrain` reads again."""
    from bothways.config import to_json

    print(to_json(run), end="")
