"""Runs side by side: curves over one another, settings that differ, what each reached and when."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bothways.errors import InputError
from bothways.training import log, record
from bothways.training.losses import unlike
from bothways.training.record import Record
from bothways.training.report import duration, smoothed, time_unit
from bothways.training.sections import Code, Lines, Section, Series, Table, render

# Levels of loss that are looked for where none are given: at least so many
_LEVELS = 5
_ABSENT = object()


@dataclass(frozen=True, eq=False)
class Contender:
    """A run to compare.

    Attributes:
        name: of its folder, with as much of the path as tells it from the others.
    """

    name: str
    known: Record
    lines: list[log.Line]

    @cached_property
    def train(self) -> list[log.Line]:
        return [line for line in self.lines if line["kind"] == "train"]

    @cached_property
    def evaluations(self) -> list[log.Line]:
        return [line for line in self.lines if line["kind"] == "evaluation"]

    @cached_property
    def held_out(self) -> list[log.Line]:
        """The evaluation lines that have a loss."""
        return [line for line in self.evaluations if line["metrics"].get("loss") is not None]

    @property
    def terms(self) -> dict[str, float | None]:
        """What the loss adds up, and how much each counts; None where the record does not say."""
        return {name: self.known.weights.get(name) for name in self.train[-1]["terms"]}

    @property
    def speed(self) -> int | None:
        """Tokens a second of steps."""
        last = self.train[-1]
        return round(last["tokens"] / last["seconds"]) if last["seconds"] else None

    @property
    def parameters(self) -> int:
        return sum(math.prod(row.shape) for row in self.known.parameters)

    def held(self, name: str) -> float | None:
        """The figure of this name at the last look at what is held out."""
        return self.evaluations[-1]["metrics"].get(name) if self.evaluations else None

    def curve(self, held_out: bool) -> list[tuple[log.Line, float]]:
        """Lines and their loss: held out, or in training, smoothed."""
        if held_out:
            return [(line, line["metrics"]["loss"]) for line in self.held_out]
        lines = [line for line in self.train if line["loss"] is not None]
        return list(zip(lines, smoothed([line["loss"] for line in lines]), strict=True))


@dataclass(frozen=True, eq=False)
class Comparison:
    """What there is to say of several runs: tables, for a terminal as well, and plots.

    Attributes:
        held_out: whether all runs have a curve of a held-out loss; if not, levels are of the training loss.
        left_out: what was given and is no run.
    """

    runs: Sequence[Contender]
    levels: Sequence[float]
    held_out: bool
    left_out: Sequence[Path] = ()

    @property
    def which(self) -> str:
        return "held-out loss" if self.held_out else "training loss, smoothed"

    @cached_property
    def figures(self) -> Table:
        """How each run ended."""
        names = list(dict.fromkeys(name for run in self.runs for line in run.evaluations[-1:] for name in line["metrics"]))
        rows: list[tuple[object, ...]] = [
            ("last training loss", *(run.train[-1]["loss"] for run in self.runs)),
            *((f"last {name}, held out", *(run.held(name) for run in self.runs)) for name in names),
            ("steps", *(run.train[-1]["step"] for run in self.runs)),
            ("tokens", *(run.train[-1]["tokens"] for run in self.runs)),
            ("time in steps", *(duration(run.train[-1]["seconds"]) for run in self.runs)),
            ("tokens a second", *(run.speed for run in self.runs)),
            ("parameters", *(run.parameters for run in self.runs)),
        ]
        left_out = f"Left out, for they are no runs: {', '.join(map(str, self.left_out))}." if self.left_out else ""
        note = " ".join(filter(None, (self.unlike, left_out)))
        return Table("Where they ended", ["", *(run.name for run in self.runs)], rows, note)

    @cached_property
    def unlike(self) -> str:
        """A sentence where the losses of the runs are of different things; empty where nothing says so."""
        found = unlike([run.known.run for run in self.runs], [run.terms for run in self.runs])
        said = f"Not all runs learn the same thing ({', '.join(found)}): compare the losses of those that do."
        return said if found else ""

    @cached_property
    def crossings(self) -> dict[float, list[tuple[float, float] | None]]:
        """For each level, the tokens and seconds after which each run is at it; None where it never is."""
        curves = [run.curve(self.held_out) for run in self.runs]
        return {level: [_crossing(curve, level) for curve in curves] for level in self.levels}

    @property
    def reached(self) -> Table:
        """What each run needed for each level of the loss."""
        rows = [
            (f"{level:g}", *(None if one is None else f"{round(one[0]):,} in {duration(one[1])}" for one in places))
            for level, places in self.crossings.items()
        ]
        columns = [self.which, *(run.name for run in self.runs)]
        return Table(
            "Tokens and time in steps to a loss",
            columns,
            rows,
            note=f"-: not reached. Between two points of the log, a straight line is taken. {self.unlike}".rstrip(),
        )

    @cached_property
    def differences(self) -> Table:
        """The settings that are not the same in all runs; what only some have stands in one row."""
        rows = list(_differences("", [run.known.run for run in self.runs]))
        note = "" if rows else "All settings are the same."
        return Table("Settings that differ", ["setting", *(run.name for run in self.runs)], rows, note=note)

    @cached_property
    def plots(self) -> list[Lines]:
        name, unit = time_unit(max(run.train[-1]["seconds"] for run in self.runs))

        def overlaid(
            title: str, ylabel: str, points: Callable[[Contender], list[tuple[log.Line, float]]], time: bool = False
        ) -> Lines:
            series = []
            for number, run in enumerate(self.runs):
                found = points(run)
                if not found:
                    continue
                x = [line["seconds"] / unit if time else line["tokens"] for line, _ in found]
                style = "points" if len(found) == 1 else "line"
                series.append(Series(run.name, x, [y for _, y in found], style, number))
            return Lines(title, series, f"{name} of steps" if time else "tokens", ylabel, height=3.1)

        plots = [overlaid("Training loss", "loss", lambda run: run.curve(False))]
        if any(run.held_out for run in self.runs):
            plots.append(overlaid("Held-out loss", "loss", lambda run: run.curve(True)))
            plots.append(overlaid("Held-out loss against time", "loss", lambda run: run.curve(True), time=True))
        plots.append(overlaid("Training loss against time", "loss", lambda run: run.curve(False), time=True))
        for title, key in (("Learning rate", "lr"), ("Throughput", "tokens_per_second"), ("Gradient norm", "gradient_norm")):
            plots.append(
                overlaid(title, title.lower().replace("throughput", "tokens per second"), lambda run, key=key: _field(run, key))
            )
        return plots


def compare(folders: Sequence[Path], levels: Sequence[float] = ()) -> Comparison:
    """Read the runs of some folders.

    Args:
        levels: of the loss, whose tokens and times are looked for; some between the first and the last losses unless given.

    What is there and is no run, as a wildcard finds it beside some, is left out, and told of.

    Raises:
        InputError: fewer than two folders of runs, one given twice, one that is not there, or a run that has logged no step.
    """
    if len(folders) < 2 or len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("compare: give the folders of two runs or more, each once")
    left_out = [folder for folder in folders if folder.exists() and record.read(folder) is None]
    chosen = [folder for folder in folders if folder not in left_out]
    if len(chosen) < 2:
        chosen = folders  # the first that is no run is refused by its name
    runs = [_read(folder, name) for folder, name in zip(chosen, _names(chosen), strict=True)]
    held_out = all(len(run.held_out) > 1 for run in runs)
    levels = sorted(levels, reverse=True) or _levels([[y for _, y in run.curve(held_out)] for run in runs])
    return Comparison(runs, levels, held_out, left_out)


def page(comparison: Comparison, path: Path, command: str = "") -> Path:
    """Write the page.

    Raises:
        MissingExtraError: the extra `report` is not installed.
        InputError: the file cannot be written.
    """
    of_loss = [plot for plot in comparison.plots if plot.ylabel == "loss"]
    others = [plot for plot in comparison.plots if plot.ylabel != "loss"]
    tables = (_shown(table) for table in (comparison.figures, comparison.reached))
    sections: list[Section] = [*tables, *of_loss, _shown(comparison.differences), *others]
    if command:
        sections.append(Code("To reproduce", command, folded=False))
    return render(f"{len(comparison.runs)} runs", sections, path, subtitle=", ".join(run.name for run in comparison.runs))


def _read(folder: Path, name: str) -> Contender:
    known = record.read(folder)
    try:
        lines = log.read(folder) if known else []
    except FileNotFoundError:
        lines = []
    if known is None or not any(line["kind"] == "train" and line["loss"] is not None for line in lines):
        raise InputError(f"{folder}: no training run to compare; give the folder of a run that has logged a step")
    return Contender(name, known, lines)


def _names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as few as tell all apart."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _levels(curves: Sequence[Sequence[float]]) -> list[float]:
    """Round numbers from where the first run is soon to where the best one ends."""
    high, low = min(max(curve) for curve in curves), min(min(curve) for curve in curves)
    if high <= low:
        return [low]
    finest = (high - low) / _LEVELS
    unit = 10.0 ** math.floor(math.log10(finest))
    step = max(size * unit for size in (1, 2, 5) if size * unit <= finest)
    return [round(number * step, 10) for number in range(math.floor(high / step), math.ceil(low / step) - 1, -1)]


def _crossing(curve: Sequence[tuple[log.Line, float]], level: float) -> tuple[float, float] | None:
    """Tokens and seconds at which a curve first is at a level or below it."""
    before = None
    for line, value in curve:
        if value <= level:
            if before is None or value == level:
                return line["tokens"], line["seconds"]
            last, height = before
            part = (height - level) / (height - value)
            return tuple(last[name] + part * (line[name] - last[name]) for name in ("tokens", "seconds"))
        before = line, value
    return None


def _field(run: Contender, key: str) -> list[tuple[log.Line, float]]:
    lines = [line for line in run.train if line.get(key) is not None]
    values = [line[key] for line in lines]
    return list(zip(lines, values if key == "lr" else smoothed(values), strict=True))


def _differences(path: str, values: Sequence[Any]) -> Iterator[tuple[str, ...]]:
    """A row for each place at which the trees differ, as far down as all of them go."""
    if all(value == values[0] for value in values) or all(value is None or value is _ABSENT for value in values):
        return
    trees = [dict(enumerate(value)) if isinstance(value, list) else value for value in values]
    if all(isinstance(tree, dict) and tree for tree in trees):
        for key in dict.fromkeys(key for tree in trees for key in tree):
            yield from _differences(f"{path}.{key}" if path else str(key), [tree.get(key, _ABSENT) for tree in trees])
    else:
        yield (path, *map(_brief, values))


def _brief(value: Any) -> str:
    """A setting in a few words."""
    if value is _ABSENT or value is None:
        return "none"
    if isinstance(value, dict):
        value = value.get("type", f"{{{', '.join(value)}}}")
    return textwrap.shorten(
        value if isinstance(value, str) else json.dumps(value), 40, placeholder=" ...}" if str(value).startswith("{") else " ..."
    )


def _shown(table: Table) -> Table:
    """The table with its numbers as people read them, and with dotted names that break at their dots."""

    def text(cell: object) -> object:
        return f"{cell:,}" if isinstance(cell, int) else f"{cell:.4g}" if isinstance(cell, float) else cell

    rows = [[str(first).replace(".", ".\u200b"), *map(text, rest)] for first, *rest in table.rows]
    return replace(table, rows=rows)
