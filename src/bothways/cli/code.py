"""`bothways code`: CuBERT's tasks from any folder of Python, and pointers that find and mend a wrong variable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bothways.cli.files import new_folder
from bothways.cli.options import JsonOption, examples, named
from bothways.cli.output import aligned, command, note, progress, show, stoppable
from bothways.cli.train import (
    DryOption,
    HoursOption,
    OutOption,
    SetOption,
    StepsOption,
    TokensOption,
    chosen_budget,
    print_run,
    tell,
)

if TYPE_CHECKING:
    from bothways.data.code.build import Account

_BUILD = examples(
    "bothways code build --out code_tasks",
    "bothways code build src/ lib/ --longest 150 --mutations 5 --leave-out vendor --out code_tasks",
)
_REPAIR = examples(
    "bothways code repair runs/code/model code_tasks/variable_misuse_repair --steps 2000 --out runs/repair",
    "bothways code repair runs/code/model code_tasks/variable_misuse_repair --masking zeroed --hours 0.5 --out runs/repair",
)


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="Learn from source code: tasks and pointers.", no_args_is_help=True, rich_markup_mode=None)
    verbs.command(epilog=_BUILD)(build)
    verbs.command(epilog=_REPAIR)(repair)
    app.add_typer(verbs, name="code")


def build(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", callback=named, help="The folder to write: new, or empty.")],
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER...]", help="Python files, or folders of them; default: this Python's standard library."),
    ] = None,
    longest: Annotated[int, typer.Option("--longest", min=1, help="Leave out functions of more tokens of Python.")] = 250,
    mutations: Annotated[int, typer.Option("--mutations", min=1, help="At most so many bugs of a kind in a function.")] = 3,
    leave_out: Annotated[
        list[str] | None, typer.Option("--leave-out", metavar="NAME", help="Do not look into folders of this name.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bugs drawn; not of which files are tested on.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Build CuBERT's six tasks, and a corpus to pretrain on, from real functions.

    TASK/train.jsonl, dev.jsonl and test.jsonl are for `bothways finetune` and `bothways code repair`, corpus.jsonl (the files
    learned from) for `bothways pretrain`. What does not parse, or is nearly the same as something else, is left out and counted.
    """
    import sysconfig
    from dataclasses import asdict, replace

    from bothways.data.code.build import MANIFEST, CodeTasks
    from bothways.data.code.build import build as carry_out

    paths = tuple(map(str, sources or [sysconfig.get_path("stdlib")]))
    tasks = CodeTasks(paths=paths, longest=longest, mutations=mutations, seed=seed)
    tasks = replace(tasks, left_out=(*tasks.left_out, *(leave_out or [])))
    with new_folder(out) as folder, progress(None, "bytes") as advance:
        account = carry_out(tasks, folder, advance, note)
    for name, reason in list(account.refused.items())[:3]:
        note(f"left out: {name}: {reason}")
    if len(account.refused) > 3:
        note(f"and {len(account.refused) - 3:,} more files that cannot be read, listed in {out / MANIFEST}")
    show({"out": str(out), **asdict(account)}, f"{out}\n{_table(account)}", as_json)


def repair(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A pretrained model: a folder, or the id of a repository.")],
    task: Annotated[Path, typer.Argument(metavar="TASK", help="The folder variable_misuse_repair of `bothways code build`.")],
    out: OutOption,
    masking: Annotated[
        Literal["excluded", "zeroed"],
        typer.Option("--masking", help="Of tokens that are no variables: no probability, or (as published) a logit of 0."),
    ] = "excluded",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Functions a step.")] = 32,
    lr: Annotated[float, typer.Option("--lr", min=0.0, help="The highest learning rate.")] = 1e-4,
    overflow: Annotated[
        Literal["error", "cut"], typer.Option("--overflow", help="Functions too long: refused, or cut and counted.")
    ] = "error",
    hours: HoursOption = None,
    tokens: TokensOption = None,
    steps: StepsOption = None,
    changes: SetOption = None,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train two pointers: at the wrong variable of a function, and at the right one.

    Held out is TASK/test.jsonl. Told of it, as published: accuracy (is there a bug?), true_positive (functions without a bug told
    to have none), and of functions with a bug localization, repair and joint.
    """
    from bothways.config import override
    from bothways.data.packing import SampleCount
    from bothways.data.rows import open_table
    from bothways.layers.pointer import PointerHead
    from bothways.recipes.repairing import repair as carry_out
    from bothways.recipes.runs import Repairing
    from bothways.training.optimizer import AdamW
    from bothways.training.schedule import Linear
    from bothways.training.settings import TrainingConfig

    run = Repairing(
        model=model,
        table=open_table(task / "train.jsonl"),
        held_out=open_table(task / "test.jsonl"),
        head=PointerHead(masking=masking),
        batching=SampleCount(samples=batch),
        training=TrainingConfig(optimizer=AdamW(lr=lr), schedule=Linear(), budget=chosen_budget(hours, tokens, steps)),
        overflow=overflow,
    )
    run = override(run, changes or [])
    if dry_run:
        return print_run(run)
    with stoppable():
        return tell(carry_out(run, out, note, command()), as_json)


def _table(account: Account) -> str:
    """What was read, left out and made."""
    told = {
        "files": _counts(account.files),
        "files that do not parse": f"{len(account.refused):,}",
        "nearly the same": f"{account.duplicate_files:,} files, {account.duplicate_functions:,} functions",
        "functions": _counts(account.functions),
        "too short, long; empty": f"{account.too_short:,}, {account.too_long:,}, {account.empty:,}",
        "corpus": f"{account.corpus:,} files",
    }
    return aligned(told | {task: _counts(counts) for task, counts in account.rows.items()})


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{part} {count:,}" for part, count in counts.items())
