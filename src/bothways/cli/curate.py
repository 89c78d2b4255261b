"""`bothways curate`: from a pile of documents to those worth learning from, with an account of the rest."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bothways.cli.options import ColumnOption, JsonOption, Split, examples, named
from bothways.cli.output import command, note, progress, show, stoppable

if TYPE_CHECKING:
    from bothways.data.curation.recipe import Curation, CurationStep
    from bothways.data.curation.run import Curated

Format = Literal["jsonl.gz", "jsonl.zst", "jsonl", "parquet"]

_EXAMPLES = examples(
    "bothways curate crawl/ --language eng --out corpus",
    "bothways curate posts.jsonl books/ --column body --out corpus --format parquet",
    "bothways curate crawl/ --domain shop_domain --decontaminate dev.tsv --decontaminate test.jsonl --pii --out corpus",
    "bothways curate crawl/ --language deu --dry-run > recipe.json",
    "bothways curate crawl/ --config recipe.json --set steps.3.min_words=20 --out corpus",
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(curate)


def curate(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Text files, tables, HTML, web archives (WARC), or folders of them.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="The folder to write; the same command goes on with it after a stop."),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option("--language", metavar="CODE", help="Keep this language (eng, deu, ...), by its rules of quality."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="A recipe, as --dry-run prints it; its sources are not used.")
    ] = None,
    domain: Annotated[
        Path | None, typer.Option("--domain", metavar="FOLDER", help="Keep what `bothways domain train` learned to know.")
    ] = None,
    decontaminate: Annotated[
        list[Path] | None,
        typer.Option(
            "--decontaminate", metavar="FILE", help="Cut out the rows of an evaluation set: lines, or --column of a table."
        ),
    ] = None,
    pii: Annotated[
        bool, typer.Option("--pii", help="Replace e-mail addresses, telephone numbers, accounts and the like.")
    ] = False,
    skip: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out files that cannot be read, and count them; else an error.")
    ] = False,
    column: ColumnOption = "text",
    split: Annotated[Split, typer.Option("--split", help="What a document is: a file or row, a paragraph, a line.")] = "whole",
    form: Annotated[Format | None, typer.Option("--format", help="Of the shards; default: jsonl.gz.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes; default: one a core.")] = None,
    executor: Annotated[
        Literal["local", "ray"] | None, typer.Option("--executor", help="This machine's processes, or Ray's; Slurm: --config.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a field of the recipe: part_bytes=1000000.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the recipe as JSON and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Curate documents: leave out duplicates, other languages and what is no text, and say why.

    Without --language, duplicates alone are left out. The folder holds the shards (data/), manifest.json, and the account
    as audit.json and audit.html;
    `bothways pretrain FOLDER/data` reads it.
    """
    from bothways.config import override, to_json
    from bothways.errors import InputError

    recipe = _recipe(sources, language, config, column, split)
    recipe = replace(recipe, steps=(*_first(pii), *recipe.steps, *_last(domain, decontaminate or [], column)))
    if skip:
        recipe = replace(recipe, unreadable="drop")
    recipe = override(_changed(recipe, form, executor, workers), changes or [])
    if dry_run:
        print(to_json(recipe), end="")
        return
    if out is None:
        raise InputError("--out: name the folder to write")
    from bothways.data.curation.manifest import NAME
    from bothways.data.curation.run import curate as carry_out

    fresh = not out.exists()  # else it is not known how long the work took
    again = (out / NAME).exists()
    start = time.monotonic()
    with stoppable():
        done = carry_out(recipe, named(out), note, lambda total: progress(total, "bytes"))
    if done is not None:
        seconds = time.monotonic() - start
        _write_page(done, seconds if fresh else None)
        _report(done, None if again else seconds, as_json)


def _recipe(sources: list[Path], language: str | None, config: Path | None, column: str, split: Split) -> Curation:
    from bothways.config import from_json
    from bothways.data.curation.recipe import Curation, usual_steps
    from bothways.data.curation.sources import open_curated
    from bothways.errors import InputError

    opened = tuple(source for path in sources for source in open_curated(path, column, split))
    if config is None:
        return Curation(sources=opened, steps=usual_steps(language))
    if language is not None:
        raise InputError("--language: the recipe of --config says what is kept; change it there, or by --set")
    if not config.is_file():
        raise InputError(f"{config}: no such file; `bothways curate SOURCE --dry-run` prints one to begin with")
    return replace(from_json(Curation, config.read_text(encoding="utf-8"), str(config)), sources=opened)


def _first(pii: bool) -> tuple[CurationStep, ...]:
    """Personal data goes before any other step, for the account shows examples of what each step was given."""
    from bothways.data.curation.pii import Pii

    return (Pii(),) if pii else ()


def _last(domain: Path | None, evaluation: list[Path], column: str) -> tuple[CurationStep, ...]:
    from bothways.data.curation.decontamination import Decontamination, evaluation_sets
    from bothways.data.curation.domain import DomainSelection

    steps: tuple[CurationStep, ...] = () if domain is None else (DomainSelection(folder=str(domain)),)
    sets = tuple(one for path in evaluation for one in evaluation_sets(path, (column,)))
    return (*steps, Decontamination(sets=sets)) if sets else steps


def _write_page(done: Curated, seconds: float | None) -> None:
    from bothways.errors import MissingExtraError
    from bothways.recipes.audit import PAGE, write_audit

    page = done.folder / PAGE
    if seconds is None and page.exists():
        return
    try:
        note(str(write_audit(done.audit, page, command(), seconds)))
    except MissingExtraError as missing:
        note(str(missing))


def _changed(recipe: Curation, form: Format | None, executor: Literal["local", "ray"] | None, workers: int | None) -> Curation:
    from bothways.data.curation.recipe import Local, Ray
    from bothways.data.curation.shards import JsonlShards, ParquetShards

    if form is not None:
        outputs = {
            "jsonl.gz": JsonlShards(),
            "jsonl.zst": JsonlShards(compression="zstd"),
            "jsonl": JsonlShards(compression="none"),
            "parquet": ParquetShards(),
        }
        recipe = replace(recipe, output=outputs[form])
    if executor is not None:
        recipe = replace(recipe, executor=Ray() if executor == "ray" else Local())
    return recipe if workers is None else replace(recipe, executor=replace(recipe.executor, workers=workers))


def _report(done: Curated, seconds: float | None, as_json: bool) -> None:
    """What came of it; and how fast, but where all had been done before."""
    read, kept = done.audit["input"], done.audit["output"]
    data = {"out": str(done.folder), "input": read, "output": kept, "steps": done.audit["steps"]}
    last = (
        f"{done.folder}: {kept['documents']:,} of {read['documents']:,} documents, {kept['characters']:,} characters in "
        f"{kept['files']:,} file{'s' if kept['files'] != 1 else ''}"
    )
    speed = ""
    if seconds is not None:
        rate = {
            "documents": read["documents"] / seconds,
            "megabytes": sum(one.bytes for one in done.manifest.inputs) / 1e6 / seconds,
        }
        data |= {"seconds": round(seconds, 1), "per_second": {name: round(value, 2) for name, value in rate.items()}}
        characters = read["characters"] / 1e6 / seconds
        speed = f"\n{seconds:,.1f} s, {rate['documents']:,.0f} documents/s, {characters:,.2f} million characters/s"
    show(data, f"{_table(done.audit)}\n{last}{speed}", as_json)


def _table(audit: dict[str, Any]) -> str:
    """A line for each step, and one below it for each reason."""
    from bothways.data.curation.reasons import in_words

    rows = [("", "documents", "characters"), ("read", *_amount(audit["input"]))]
    for step in audit["steps"]:
        rows.append((f"{step['type']} kept", *_amount(step["kept"])))
        for reason in step["reasons"]:
            rows.append((f"  {reason['outcome']}: {in_words(reason['reason'], step['settings'])}", *_amount(reason)))
        found = sum(name.startswith("row ") for name in step["counts"])  # of evaluation sets: too many to list here
        counted = {name: count for name, count in step["counts"].items() if not name.startswith("row ")}
        if found:
            counted["evaluation rows found"] = found
        # beside the columns, for these count no documents
        rows += [(f"  {name}: {count:,}", "", "") for name, count in counted.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(f"{name:<{widths[0]}}  {count:>{widths[1]}}  {size:>{widths[2]}}".rstrip() for name, count, size in rows)


def _amount(amount: dict[str, Any]) -> tuple[str, str]:
    return f"{amount['documents']:,}", f"{amount['characters']:,}"
