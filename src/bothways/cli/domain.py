"""`bothways domain train`: a classifier of documents from a few hundred labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bothways.cli.files import check_new, new_folder
from bothways.cli.options import JsonOption, examples, named
from bothways.cli.output import aligned, note, show
from bothways.errors import InputError

_TRAIN = examples(
    "bothways domain train labels.jsonl --wanted shop --out shop_domain",
    "bothways domain train labels.csv --label topic --wanted law,tax --recall 0.95 --out law_domain",
)


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="Choose documents of a domain, by labels.", no_args_is_help=True, rich_markup_mode=None)
    verbs.callback()(_group)  # or a group of one verb would have no verb
    verbs.command(epilog=_TRAIN)(train)
    app.add_typer(verbs, name="domain")


def train(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Labelled texts, a few hundred: JSONL, CSV, TSV, Parquet.")],
    wanted: Annotated[str, typer.Option("--wanted", metavar="LABEL[,LABEL...]", help="The labels that are the domain.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", callback=named, help="The folder to write: new, or empty.")],
    text: Annotated[str, typer.Option("--text", metavar="COLUMN", help="The column of the text.")] = "text",
    label: Annotated[str, typer.Option("--label", metavar="COLUMN", help="The column of the label.")] = "label",
    precision: Annotated[
        float | None, typer.Option("--precision", help="So much of what is chosen should be wanted; 0.9 where nothing is given.")
    ] = None,
    recall: Annotated[float | None, typer.Option("--recall", help="So much of what is wanted should be chosen.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a domain's classifier, set its threshold, and measure both on labels they have not seen."""
    check_new(out)
    if precision is not None and recall is not None:
        raise InputError("--precision and --recall: a threshold can be set for one of them")
    from bothways.data.curation.domain import DomainTraining, LeastPrecision, LeastRecall
    from bothways.data.curation.domain_training import train_domain
    from bothways.data.rows import open_table
    from bothways.data.table import SingleText, read_labelled

    aim = LeastRecall(least=recall) if recall is not None else LeastPrecision(least=0.9 if precision is None else precision)
    training = DomainTraining(wanted=tuple(part.strip() for part in wanted.split(",")), aim=aim)
    domain = train_domain(read_labelled(open_table(labels), SingleText(text=text, label=label)), training)
    with new_folder(out) as temporary:
        domain.save(temporary)
    file = domain.file
    if file.repeated:
        note(f"{labels}: {file.repeated} rows repeat the text of another and were left out")
    rows = {
        "labels": ", ".join(f"{count:,} {name}" for name, count in file.labels.items()),
        "threshold": f"{file.threshold:.4f}, for a {aim.type} of {aim.least:g}",
        "held out": f"{file.held_out.rows:,} texts",
        "precision": str(file.held_out.precision),
        "recall": str(file.held_out.recall),
    }
    show({"out": str(out)} | _plain(file), f"{out}\n{aligned(rows)}", as_json)


def _group() -> None:
    pass


def _plain(file: object) -> dict[str, object]:
    import json

    from bothways.config import to_json

    return json.loads(to_json(file))
