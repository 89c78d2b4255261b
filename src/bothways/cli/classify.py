"""`bothways classify`: the classes of texts, by a model that was fine-tuned to tell them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bothways.cli.embed import read_texts
from bothways.cli.files import check_no_file
from bothways.cli.options import ColumnOption, JsonOption, ModelArgument, Split, examples
from bothways.cli.output import show

if TYPE_CHECKING:
    from bothways.model.model import Model

_EXAMPLES = examples(
    "bothways classify runs/reviews/model new.txt",
    "bothways classify runs/reviews/model new.csv --column body --out classes.csv",
    "bothways classify runs/reviews/model letters/ --split whole --overflow cut --json",
)
_SHOWN = 60  # characters of a text, on a line of the terminal


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(classify)


def classify(
    model: ModelArgument,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A text file (one text a line), a table, or a folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write .csv or .jsonl; else a line for each text is shown.")
    ] = None,
    column: ColumnOption = "text",
    split: Annotated[
        Split | None, typer.Option("--split", help="What is one text; default: a line of a text file, a whole cell of a table.")
    ] = None,
    overflow: Annotated[
        Literal["error", "cut"], typer.Option("--overflow", help="Texts that are too long: refused, or cut and counted.")
    ] = "error",
    as_json: JsonOption = False,
) -> None:
    """Say of each text which class it is of, with the probability; of a regression, the value."""
    if out is not None and out.suffix not in (".csv", ".jsonl"):
        raise typer.BadParameter(f"{out}: the name ends in .csv or .jsonl", param_hint="--out")
    if out is not None:
        check_no_file(out)
    documents = read_texts(source, column, split)
    import bothways

    loaded = bothways.load(model)
    found = _found(loaded, [document.text for document in documents], overflow)
    rows = [{"where": one.where, "text": one.text, **answer} for one, answer in zip(documents, found, strict=True)]
    if out is None:
        return show({"model": model, "texts": rows}, "\n".join(map(_line, rows)), as_json)
    _write(out, rows)
    show({"out": str(out), "model": model, "texts": len(rows)}, f"{len(rows):,} texts in {out}", as_json)


def _found(model: Model, texts: list[str], overflow: Literal["error", "cut"]) -> list[dict[str, Any]]:
    scores = model.predict(texts, overflow=overflow)
    if scores.shape[1] == 1 or not model.spec.labels:  # a regression, or classes nobody named
        return [{"values": [round(value, 6) for value in row]} for row in scores.tolist()]
    return [{"label": model.spec.labels[int(row.argmax())], "probability": round(float(row.max()), 6)} for row in scores]


def _line(row: dict[str, Any]) -> str:
    text = " ".join(row["text"].split())
    short = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    if "label" in row:
        return f"{row['probability']:.4f}  {row['label']}  {short}"
    return f"{' '.join(f'{value:.4f}' for value in row['values'])}  {short}"


def _write(out: Path, rows: list[dict[str, Any]]) -> None:
    from bothways.files import replacing

    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        if out.suffix == ".jsonl":
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            return
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
