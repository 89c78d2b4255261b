"""A table of results, for the terminal and for JSON. The same `Table` is a section of the HTML report."""

from __future__ import annotations

import math
from dataclasses import replace

import rich.table
from rich.markup import escape

from bothways.training.sections import Table

__all__ = ["Table", "to_json", "to_rich", "to_text"]


def to_rich(table: Table) -> rich.table.Table:
    """For a rich console; columns with numbers are flush right."""
    shown = rich.table.Table(title=escape(table.title), caption=escape(table.note), title_justify="left", caption_justify="left")
    for place, name in enumerate(table.columns):
        numeric = any(isinstance(row[place], int | float) for row in table.rows)
        shown.add_column(escape(name), justify="right" if numeric else "left")
    for row in to_text(table).rows:
        shown.add_row(*(escape(str(cell)) for cell in row))
    return shown


def to_text(table: Table) -> Table:
    """The table with its numbers as people read them: four digits behind the point, thousands parted by commas."""
    return replace(table, rows=[[_text(cell) for cell in row] for row in table.rows])


def to_json(table: Table) -> dict[str, object]:
    """A tree for `json.dumps`; a number that is not finite becomes None."""
    rows = [[None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in row] for row in table.rows]
    return {"title": table.title, "columns": list(table.columns), "rows": rows, "note": table.note}


def _text(cell: object) -> str:
    match cell:
        case None:
            return "-"
        case int():
            return f"{cell:,}"
        case float():
            return f"{cell:.4f}" if math.isfinite(cell) else "-"
        case _:
            return str(cell)
