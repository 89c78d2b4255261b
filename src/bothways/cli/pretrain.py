"""`bothways pretrain` and `recipes`: from raw text to an encoder, by a published run or one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bothways.cli.options import ColumnOption, JsonOption, examples
from bothways.cli.output import command, note, show, stoppable
from bothways.cli.train import (
    DryOption,
    HoursOption,
    OutOption,
    SetOption,
    StepsOption,
    TokenizerOption,
    TokensOption,
    chosen_budget,
    print_run,
    tell,
)
from bothways.errors import InputError

if TYPE_CHECKING:
    from bothways.recipes.runs import Pretraining, Staged
    from bothways.training.schedule import Hours, Steps, Tokens

_PRETRAIN = examples(
    "bothways pretrain my_texts/ --out runs/mine --hours 1",
    "bothways pretrain corpus.jsonl --column body --recipe bert --size mini --tokens 50000000 --out runs/bert",
    "bothways pretrain shards/mine --out runs/mine --hours 1",
    "bothways pretrain mixture.json --tokenizer my_tokenizer --out runs/mixed --hours 1",
    "bothways pretrain my_texts/ --out runs/lr --hours 1 --set training.optimizer.lr=1e-3 --set masking.rate=0.2",
    "bothways pretrain my_texts/ --recipe modernbert --text anneal=good_texts/ --hours 8 --out runs/staged",
    "bothways pretrain my_texts/ --from answerdotai/ModernBERT-base --hours 2 --out runs/adapted",
    "bothways pretrain my_texts/ --from base/ --add-tokens words.txt --general wiki.txt --hours 2 --out runs/adapted",
    "bothways pretrain my_texts/ --from electra/ --generator electra_generator/ --hours 2 --out runs/adapted",
    "bothways pretrain run.json --out runs/again",
)
_RECIPES = examples("bothways recipes", "bothways recipes --json")

# Where neither --recipe nor --start says what to do
_DEFAULT = "modernbert_short"


def register(app: typer.Typer) -> None:
    app.command(epilog=_PRETRAIN)(pretrain)
    app.command(epilog=_RECIPES)(recipes)


def pretrain(
    corpus: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS",
            help="Text files, a folder of them, a table, a folder of `bothways tokenize`, a mixture or a whole run (JSON).",
        ),
    ],
    out: OutOption,
    tokenizer: TokenizerOption = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help=f"A published run; `bothways recipes` lists them. {_DEFAULT} unless given.")
    ] = None,
    size: Annotated[
        Literal["toy", "tiny", "mini", "base"] | None, typer.Option("--size", help="base is the paper's; tiny unless given.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--start", "--from", metavar="MODEL", help="Go on from a model: its network, tokenizer and weights."),
    ] = None,
    add_tokens: Annotated[
        Path | None, typer.Option("--add-tokens", metavar="FILE", help="Words, one a line, that become tokens of that model.")
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(
            "--generator", metavar="MODEL", help="Replaced tokens are this model's, which goes on beside; else a fresh one's."
        ),
    ] = None,
    general: Annotated[
        Path | None, typer.Option("--general", metavar="TEXT", help="Text of no domain: measure on it what is forgotten.")
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Option("--text", metavar="STAGE=PATH", help="Other text from this stage on, of a run of stages.")
    ] = None,
    column: ColumnOption = "text",
    hours: HoursOption = None,
    tokens: TokensOption = None,
    steps: StepsOption = None,
    changes: SetOption = None,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Pretrain an encoder on your own text: tokenizer, training, a model others load, a report.

    Ctrl-C saves; the same command goes on from there.
    """
    from bothways.recipes.corpus import describe
    from bothways.recipes.pretraining import pretrain as carry_out
    from bothways.recipes.runs import Staged
    from bothways.recipes.staged import override_run, pretrain_stages

    budget = None if (hours, tokens, steps) == (None, None, None) else chosen_budget(hours, tokens, steps)
    if _is_run(corpus):
        given = {
            "--tokenizer": tokenizer,
            "--recipe": recipe,
            "--size": size,
            "--start": start,
            "--add-tokens": add_tokens,
            "--generator": generator,
            "--general": general,
            "--text": texts,
            "--hours, --tokens or --steps": budget,
        }
        if also := [name for name, value in given.items() if value]:
            raise typer.BadParameter(f"{corpus} says all of a run: {also[0]} cannot be given beside it; change it by --set")
        run = read_run(corpus)
    else:
        run = _made(corpus, column, recipe, size, start, tokenizer, budget, _words(add_tokens, start), generator)
    if general is not None:
        run = _with_general(run, general, column)
    run = override_run(_with_texts(run, texts or [], column), changes or [])
    if dry_run:
        return print_run(run)
    for line in describe((run.base if isinstance(run, Staged) else run).source):
        note(line)
    with stoppable():
        done = pretrain_stages(run, out, note, command()) if isinstance(run, Staged) else carry_out(run, out, note, command())
        return tell(done, as_json)


def recipes(as_json: JsonOption = False) -> None:
    """List the published pretraining runs: what each is, its stages, what it needs."""
    from bothways.cli.output import aligned
    from bothways.recipes.published import RECIPES

    data = {recipe.name: recipe.described for recipe in RECIPES.values()}
    told = []
    for name, one in data.items():
        rest = {f"  {key}": value for key, value in one.items() if key != "summary"}
        told.append(f"{name}: {one['summary']}\n{aligned(rest)}")
    show(data, "\n\n".join(told), as_json)


def _is_run(path: Path) -> bool:
    """Whether a path is the JSON of a run; a mixture of texts is JSON too."""
    from bothways.files import read_object

    return path.suffix == ".json" and path.is_file() and "parts" not in read_object(path)


def read_run(path: Path) -> Pretraining | Staged:
    """The run of a file that `--dry-run` printed."""
    from bothways.config import from_json
    from bothways.files import read_object
    from bothways.recipes.runs import Pretraining, Staged

    staged = "stages" in read_object(path)
    return from_json(Staged if staged else Pretraining, path.read_text(encoding="utf-8"), str(path))


def _made(
    corpus: Path,
    column: str,
    name: str | None,
    size: str | None,
    start: str | None,
    tokenizer: Path | None,
    budget: Hours | Tokens | Steps | None,
    words: Sequence[str],
    generator: str | None,
) -> Pretraining | Staged:
    """The run of a recipe, on these texts."""
    from bothways.recipes.continuing import adaptation, continued
    from bothways.recipes.corpus import open_text
    from bothways.recipes.published import RECIPES
    from bothways.recipes.runs import Staged
    from bothways.recipes.staged import read_with

    text = open_text(corpus, column)
    source, given = text.source, tokenizer or text.tokenizer
    if start is not None and tokenizer is not None:
        raise typer.BadParameter("--tokenizer goes without --start: the model has its own")
    if start is None and generator is not None:
        raise typer.BadParameter("--generator goes with --start: it was trained beside that model")
    if start is not None and name is None:
        if size is not None:
            raise typer.BadParameter("--size goes with --recipe: without one, --start keeps the model's own")
        return adaptation(source, _needed(budget), start, words, generator)
    name = name or _DEFAULT
    if name not in RECIPES:
        raise InputError(f"--recipe {name}: no such recipe; there is {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    run = recipe(source, budget if recipe.budgeted(size or "tiny") else _needed(budget), size or "tiny")  # type: ignore[arg-type]
    if start is None:
        return run if given is None else read_with(run, given)
    if isinstance(run, Staged):
        raise InputError(f"--start: {name} has stages that change its own network; choose a recipe of one stage")
    return continued(run, start, words, generator)


def _words(file: Path | None, start: str | None) -> tuple[str, ...]:
    """The tokens of a file that are added to a model."""
    from bothways.data.added_tokens import read_tokens

    if file is not None and start is None:
        raise typer.BadParameter("--add-tokens goes with --start: a tokenizer that is trained makes its own")
    return () if file is None else read_tokens(file)


def _with_general(run: Pretraining | Staged, path: Path, column: str) -> Pretraining:
    from bothways.data.source import open_source
    from bothways.recipes.runs import Staged

    if isinstance(run, Staged):
        raise InputError("--general: what is forgotten is told of a run of one stage; choose a recipe of one")
    return replace(run, general=open_source(path, column))


def _needed(budget: Hours | Tokens | Steps | None) -> Hours | Tokens | Steps:
    return chosen_budget(None, None, None) if budget is None else budget


def _with_texts(run: Pretraining | Staged, texts: list[str], column: str) -> Pretraining | Staged:
    """The run with other texts in the stages that are named."""
    from bothways.recipes.corpus import open_text
    from bothways.recipes.runs import Staged

    for given in texts:
        name, _, path = given.partition("=")
        names = [stage.name for stage in run.stages] if isinstance(run, Staged) else []
        if name not in names or not path:
            there = f"the stages are {', '.join(names)}" if names else "this run has one stage"
            raise InputError(f"--text {given}: expected STAGE=PATH; {there}")
        assert isinstance(run, Staged)
        source = open_text(Path(path), column).source
        changed = tuple(replace(one, source=source) if one.name == name else one for one in run.stages)
        run = replace(run, stages=changed)
    return run
