"""`bothways distil`: a smaller model that learns from a teacher, on text or on the rows of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from bothways.cli.options import ColumnOption, JsonOption, examples
from bothways.cli.output import command, note, stoppable
from bothways.cli.train import (
    DryOption,
    HoursOption,
    OutOption,
    SetOption,
    StepsOption,
    TokensOption,
    chosen_budget,
    pair_columns,
    passes,
    print_run,
    sets_budget,
    tell,
)
from bothways.errors import InputError

if TYPE_CHECKING:
    from bothways.data.table import SingleText, TextPair
    from bothways.objectives.distillation.methods import DistilBert, MiniLm, MiniLmV2, TinyBert
    from bothways.recipes.runs import Distillation, Finetuning, SiameseDistillation, TaskDistillation
    from bothways.training.schedule import Hours, Steps, Tokens

    OnRows = TaskDistillation | SiameseDistillation
    R = TypeVar("R", Distillation, OnRows)

# The same choices as the `type`s of `Method`, which would take a second to import
MethodName = Literal["distilbert", "tinybert", "minilm", "minilm_v2"]

_DISTIL = examples(
    "bothways distil runs/bert/model my_texts/ --layers 6 --hours 8 --out runs/small",
    "bothways distil runs/bert/model my_texts/ --layers 0,2,4,7,9,11 --tokens 50000000 --out runs/small",
    "bothways distil runs/bert/model my_texts/ --recipe modernbert_short --method minilm_v2 --set method.relation_heads=12 "
    "--hours 8 --out runs/other",
    "bothways distil runs/reviews/model reviews.csv --label stars --layers 3 --held-out dev.csv --out runs/fast",
    "bothways distil runs/reviews/model reviews.csv --label stars --student runs/small/model --set soft.temperature=4 "
    "--out runs/fast",
    "bothways distil runs/match/model pairs.csv --pair question,answer --label match --student runs/mine/model --apart "
    "--out runs/vectors",
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_DISTIL)(distil)


def distil(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="A trained model: a folder, or the id of a repository.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Text, as `pretrain` reads it; with --label, a table of rows.")],
    out: OutOption,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers", metavar="COUNT|I,J,...", help="The student begins as so many, or these, of the teacher's layers."
        ),
    ] = None,
    student: Annotated[
        str | None, typer.Option("--student", metavar="MODEL", help="The student begins as this model, or as layers of it.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="On text: the student is this recipe's network, with fresh weights.")
    ] = None,
    size: Annotated[
        Literal["toy", "tiny", "mini", "base"] | None, typer.Option("--size", help="Of the recipe's network; tiny unless given.")
    ] = None,
    method: Annotated[
        MethodName | None,
        typer.Option("--method", help="What is compared: on text distilbert unless given; on rows nothing but predictions."),
    ] = None,
    column: ColumnOption = "text",
    label: Annotated[
        str | None, typer.Option("--label", metavar="COLUMN", help="DATA is rows with this label; the teacher classifies them.")
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option("--pair", metavar="A,B", help="Two columns of text, read together, or with --apart by the teacher alone."),
    ] = None,
    apart: Annotated[
        bool, typer.Option("--apart", help="The student encodes the texts of a pair apart, and a head compares them (DSE).")
    ] = False,
    held_out: Annotated[Path | None, typer.Option("--held-out", metavar="TABLE", help="Rows to evaluate on.")] = None,
    regression: Annotated[bool, typer.Option("--regression", help="The label is a number.")] = False,
    epochs: Annotated[
        float | None, typer.Option("--epochs", min=0.0, help="Passes over the rows; 3 where no budget is given.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Rows a step; 32 unless given.")] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", min=0.0, help="The highest learning rate: 5e-5 on rows, 5e-4 on text.")
    ] = None,
    overflow: Annotated[
        Literal["error", "cut"] | None,
        typer.Option("--overflow", help="Rows too long: refused, as unless given, or cut and counted."),
    ] = None,
    hours: HoursOption = None,
    tokens: TokensOption = None,
    steps: StepsOption = None,
    changes: SetOption = None,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a smaller model that learns from a larger one, on text without labels or on the rows of a task."""
    from bothways.recipes.distilling import distil as on_text
    from bothways.recipes.distilling_tasks import distil_task
    from bothways.recipes.runs import Distillation, SiameseDistillation
    from bothways.recipes.siamese import distil_siamese

    budget = None if (hours, tokens, steps) == (None, None, None) else chosen_budget(hours, tokens, steps)
    if label is None:
        of_rows = {
            "--pair": pair,
            "--apart": apart or None,
            "--held-out": held_out,
            "--regression": regression or None,
            "--epochs": epochs,
        }
        _refuse("--label", of_rows | {"--batch": batch, "--overflow": overflow})
        if recipe is None:
            _refuse("--recipe", {"--size": size})
        text = _text_run(teacher, data, column, layers, student, recipe, size, budget or chosen_budget(None, None, None))
        run: Distillation | OnRows = _override(_told(text, method, lr), changes or [])
    else:
        if recipe is not None or size is not None:
            raise typer.BadParameter("--recipe and --size go without --label: give --layers or --student")
        columns = _columns(column, label, pair)
        base = _rows(student or teacher, data, columns, held_out, regression, batch or 32, lr, overflow or "error", budget)
        by_epochs = budget is None and not sets_budget([one.removeprefix("base.") for one in changes or []])
        if epochs is not None and not by_epochs:
            raise typer.BadParameter("--epochs goes with none of --hours, --tokens, --steps and --set training.budget")
        if apart and pair is None:
            raise typer.BadParameter("--apart goes with --pair")
        run = _override(_task_run(base, teacher, layers, student, method, apart), changes or [])
        if by_epochs:
            run = _for_epochs(run, 3.0 if epochs is None else epochs)
    if dry_run:
        return print_run(run)
    with stoppable():
        if isinstance(run, Distillation):
            return tell(on_text(run, out, note, command()), as_json)
        if isinstance(run, SiameseDistillation):
            return tell(distil_siamese(run, out, note, command()), as_json)
        return tell(distil_task(run, out, note, command()), as_json)


def _refuse(without: str, given: Mapping[str, object]) -> None:
    for name, value in given.items():
        if value is not None:
            raise typer.BadParameter(f"{name} goes with {without}")


def _text_run(
    teacher: str,
    corpus: Path,
    column: str,
    layers: str | None,
    student: str | None,
    recipe: str | None,
    size: str | None,
    budget: Hours | Steps | Tokens,
) -> Distillation:
    """A student on text, at the settings of DistilBERT."""
    from bothways.model.folder import resolve
    from bothways.recipes.continuing import adaptation
    from bothways.recipes.corpus import open_text
    from bothways.recipes.distilling import distillation
    from bothways.recipes.published import RECIPES
    from bothways.recipes.runs import Staged
    from bothways.recipes.staged import read_with

    if [layers, student, recipe].count(None) != 2:
        raise typer.BadParameter("give one of --layers, --student and --recipe: what the student is")
    source = open_text(corpus, column).source
    if layers is not None:
        return distillation(source, budget, teacher, _layers(layers))
    if student is not None:
        return distillation(source, budget, teacher, adaptation(source, budget, student))
    if recipe not in RECIPES:
        raise InputError(f"--recipe {recipe}: no such recipe; there is {', '.join(RECIPES)}")
    made = read_with(RECIPES[recipe](source, budget, size or "tiny"), resolve(teacher))  # type: ignore[arg-type]
    return distillation(source, budget, teacher, made.base if isinstance(made, Staged) else made)


def _told(run: Distillation, method: MethodName | None, lr: float | None) -> Distillation:
    """The run with another method and learning rate, where they are given."""
    if method is not None:
        run = replace(run, method=_method(method))
    if lr is None:
        return run
    training = run.base.training
    return replace(run, base=replace(run.base, training=replace(training, optimizer=replace(training.optimizer, lr=lr))))


def _rows(
    model: str,
    table: Path,
    columns: SingleText | TextPair,
    held_out: Path | None,
    regression: bool,
    batch: int,
    lr: float | None,
    overflow: Literal["error", "cut"],
    budget: Hours | Steps | Tokens | None,
) -> Finetuning:
    from bothways.data.packing import SampleCount
    from bothways.data.rows import open_table
    from bothways.recipes.runs import Finetuning
    from bothways.training.optimizer import AdamW
    from bothways.training.schedule import Linear, Steps
    from bothways.training.settings import TrainingConfig

    return Finetuning(
        model=model,
        table=open_table(table),
        columns=columns,
        held_out=None if held_out is None else open_table(held_out),
        regression=regression,
        batching=SampleCount(samples=batch),
        # Epochs become steps once `--set` has had its say on the rows and on how many of them a step takes.
        training=TrainingConfig(
            optimizer=AdamW(lr=5e-5 if lr is None else lr), schedule=Linear(), budget=budget or Steps(count=1)
        ),
        overflow=overflow,
    )


def _columns(text: str, label: str, pair: str | None) -> SingleText | TextPair:
    from bothways.data.table import SingleText

    return SingleText(text=text, label=label) if pair is None else pair_columns(pair, label)


def _task_run(
    base: Finetuning, teacher: str, layers: str | None, student: str | None, method: MethodName | None, apart: bool
) -> OnRows:
    """A student on the rows of a task."""
    from bothways.encoder.picking import spread_layers
    from bothways.model.folder import load
    from bothways.recipes.runs import SiameseDistillation, TaskDistillation

    if layers is None and student is None:
        raise typer.BadParameter("give --layers or --student: what the student is")
    if method == "distilbert":
        raise typer.BadParameter("--method distilbert is for text; on rows the teacher's predictions are learned from anyway")
    numbers = None if layers is None else _layers(layers)
    if isinstance(numbers, int):
        numbers = spread_layers(load(base.model, device="cpu").spec.encoder.num_layers, numbers)
    if apart:
        if method is not None:
            raise typer.BadParameter(f"--method {method} compares two models on one sequence; with --apart there are two")
        return SiameseDistillation(base=base, teacher=teacher, layers=numbers)
    hints = None if method is None else _method(method)
    return TaskDistillation(base=base, teacher=teacher, hints=hints, layers=numbers)  # type: ignore[arg-type]


def _for_epochs(run: OnRows, epochs: float) -> OnRows:
    return replace(run, base=replace(run.base, training=replace(run.base.training, budget=passes(epochs, run.base))))


def _layers(text: str) -> int | tuple[int, ...]:
    """A number of layers, or their numbers."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"--layers {text}: expected a number of layers, or their numbers with commas between")
    return int(parts[0]) if len(parts) == 1 else tuple(map(int, parts))


def _method(name: MethodName) -> DistilBert | TinyBert | MiniLm | MiniLmV2:
    from bothways.objectives.distillation.methods import DistilBert, MiniLm, MiniLmV2, TinyBert

    return {"distilbert": DistilBert, "tinybert": TinyBert, "minilm": MiniLm, "minilm_v2": MiniLmV2}[name]()


def _override(run: R, assignments: list[str]) -> R:
    """`override`, where a path that is no field of the run itself is one of its base's."""
    from bothways.config import override

    own = {field.name for field in fields(run)}
    return override(run, [one if one.split(".")[0].split("=")[0].strip() in own else f"base.{one}" for one in assignments])
