"""`bothways evaluate`: how good a model is at the field's tasks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import typer

from bothways.cli.options import JsonOption, ModelArgument, examples
from bothways.cli.output import Advance, note, progress, stoppable
from bothways.errors import InputError

if TYPE_CHECKING:
    from bothways.evaluation.table import Table
    from bothways.model.model import Model
    from bothways.recipes.glue import Protocol, TaskResult

# Those of `bothways.evaluation.glue`, which would take a second to import
TUNED = ("sst2", "mrpc", "cola", "stsb", "rte", "wnli", "qnli", "banking77")
_TASKS = ("blimp", *TUNED, "sts", "retrieval")
Scoring = Literal["token", "word_l2r"]

_EXAMPLES = examples(
    "bothways evaluate my_model --task blimp --data blimp.tar.gz --limit 100",
    "bothways evaluate my_model --task sst2 --task cola --task mrpc --task stsb --data glue/ --out results/",
    "bothways evaluate my_model --task rte --data glue/RTE --seeds 3 --epochs 3 --lr 1e-4 --json",
    "bothways evaluate my_embedder --task retrieval --data scifact/ --task sts --data sts-test.csv",
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(evaluate)


def evaluate(
    model: ModelArgument,
    task: Annotated[list[str], typer.Option("--task", metavar="NAME", help="What to evaluate; may be given several times.")],
    data: Annotated[
        list[Path], typer.Option("--data", metavar="PATH", help="The data: one path for all tasks, or one for each, in order.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Keep results here; the same command goes on with what is there."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="blimp: only so many pairs of each set.")] = None,
    scoring: Annotated[
        Scoring, typer.Option("--scoring", help="blimp: mask each token alone, or with the rest of its word.")
    ] = "token",
    split: Annotated[
        Literal["dev", "test"] | None,
        typer.Option("--split", help="Fine-tuning: the rows to evaluate on; default: test where it has labels, else dev."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Fine-tuning: runs for each task.")] = 5,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Fine-tuning: passes over the rows.")] = 5,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Fine-tuning: rows a step.")] = 16,
    lr: Annotated[float, typer.Option("--lr", min=0.0, help="Fine-tuning: the highest learning rate.")] = 4e-5,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model on benchmarks that you have.

    blimp asks a masked language model which sentence of a pair is likelier. sst2, mrpc, cola, stsb, rte, wnli, qnli and
    banking77 fine-tune it first, all with the same settings, once a seed. sts and retrieval compare its vectors as they are.
    """
    if unknown := [name for name in task if name not in _TASKS]:
        raise typer.BadParameter(f"{unknown[0]}: no such task; there is {', '.join(_TASKS)}", param_hint="--task")
    if len(data) not in (1, len(task)) or len(set(task)) != len(task):
        raise typer.BadParameter(f"{len(task)} tasks and {len(data)} paths: give each task once, and one --data, or one for each")
    import bothways
    from bothways.recipes.glue import Protocol
    from bothways.training.optimizer import AdamW

    protocol = Protocol(epochs=epochs, batch=batch, optimizer=AdamW(lr=lr), seeds=tuple(range(seeds)))
    loaded = bothways.load(model)
    tables: list[Table] = []
    tuned: list[TaskResult] = []
    with stoppable():
        for name, path in zip(task, data * len(task) if len(data) == 1 else data, strict=True):
            if name == "blimp":
                made_by = _identity(loaded, path, limit, scoring)
                tables.append(_table(out, name, made_by, lambda p=path, m=made_by: _blimp(loaded, p, limit, scoring, out, m)))
            elif name in ("sts", "retrieval"):
                tables.append(_table(out, name, _identity(loaded, path), lambda n=name, p=path: _vectors(loaded, n, p)))
            else:
                tuned.append(_tuned(model, name, path, split, protocol, out))
    _report(model, tables, tuned, as_json)


def _blimp(model: Model, path: Path, limit: int | None, scoring: Scoring, out: Path | None, made_by: dict[str, Any]) -> Table:
    from bothways.evaluation.blimp import blimp_table, evaluate_blimp, read_blimp

    sets = read_blimp(_found(path, "blimp.tar.gz", "blimp"))
    sentences = sum(2 * len(one.first(limit).good) for one in sets)
    folder = None if out is None else out / "blimp"  # of sets, whose scores are kept one by one

    def kept(name: str, make: Any) -> list[float]:
        return _kept(folder, quote(name, safe=""), made_by, "scores", make)  # names are the data's, and may hold a slash

    with progress(sentences, "tokens") as advance, _estimated(sentences, advance) as told:
        return blimp_table(evaluate_blimp(model, sets, scoring, limit, told, kept), model.name)


def _vectors(model: Model, name: str, path: Path) -> Table:
    from bothways.evaluation.beir import read_beir
    from bothways.evaluation.retrieval import evaluate_retrieval
    from bothways.evaluation.sts import evaluate_sts, read_sts

    return evaluate_sts(read_sts(path), [model]) if name == "sts" else evaluate_retrieval(read_beir(path), [model])


def _tuned(model: str, name: str, path: Path, split: Any, protocol: Protocol, out: Path | None) -> TaskResult:
    from bothways.evaluation.glue import TASKS, read_task
    from bothways.recipes.glue import finetune_on_task

    file = None if out is None else out / f"{name}.json"
    return finetune_on_task(model, read_task(TASKS[name], path, split), protocol, file, note)


def _report(model: str, tables: Sequence[Table], tuned: Sequence[TaskResult], as_json: bool) -> None:
    from rich.console import Console

    from bothways.evaluation.table import to_json, to_rich
    from bothways.recipes.glue import task_table

    shown = [*tables, *([task_table(tuned, model)] if tuned else [])]
    if as_json:
        seeds = {one.data.task.name: [dict(scores) for scores in one.seeds] for one in tuned}
        print(json.dumps({"model": model, "tables": [to_json(table) for table in shown], "seeds": seeds}, indent=2))
        return
    for table in shown:
        rows = [row for row in table.rows if row[0] != "set"]
        left = len(table.rows) - len(rows)
        remark = f"{table.note}; --json gives each of the {left} sets" if left else table.note
        Console(highlight=False).print(to_rich(replace(table, rows=rows, note=remark)))


def _identity(model: Model, path: Path, *settings: object) -> dict[str, Any]:
    return {"model": [model.fingerprint, model.heads_fingerprint], "data": str(path.resolve()), "settings": list(settings)}


def _table(out: Path | None, name: str, made_by: dict[str, Any], make: Any) -> Table:
    """The table that is kept already, or a new one."""
    from bothways.evaluation.table import Table, to_json

    return Table(**_kept(out, name, made_by, "table", lambda: to_json(make()), say=True))


def _kept(out: Path | None, name: str, made_by: dict[str, Any], what: str, make: Any, say: bool = False) -> Any:
    """The result that is there already, of the same model and settings; else a new one, which is kept."""
    from bothways.files import read_object, write_text

    if out is None:
        return make()
    file = out / f"{name}.json"
    if file.exists():
        kept = read_object(file)
        if kept.get("made_by") != made_by or what not in kept:
            raise InputError(f"{file}: the result of another model, data or settings; choose another folder, or remove it")
        if say:
            note(f"{name}: {file}")
        return kept[what]
    made = make()
    write_text(file, json.dumps({"made_by": made_by, what: made}, indent=2) + "\n")
    return made


def _found(path: Path, *names: str) -> Path:
    """The path, or what a folder of several benchmarks has under one of these names."""
    return next((path / name for name in names if (path / name).exists()), path)


@contextmanager
def _estimated(total: int, advance: Advance) -> Iterator[Advance]:
    """Tells once, after the first part that is computed, how long the whole will take."""
    begin, done, said = time.monotonic(), 0, False

    def told(sequences: int, tokens: int) -> None:
        nonlocal begin, total, done, said
        advance(sequences, tokens)
        if not tokens:  # was kept
            total, begin = total - sequences, time.monotonic()
            return
        done += sequences
        seconds = (time.monotonic() - begin) * (total - done) / done
        if not said and seconds > 20:
            note(f"about {max(round(seconds / 60), 1)} min to go; --limit reads fewer pairs")
        said = True

    yield told
