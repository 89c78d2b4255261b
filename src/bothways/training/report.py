"""The report of one training run, from its `run.json` and `log.jsonl`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from bothways.errors import InputError
from bothways.training import log, record
from bothways.training.record import Record
from bothways.training.sections import Code, Facts, Lines, Section, Series, Table, render

NAME = "report.html"


def report(
    folder: Path,
    *,
    title: str,
    command: str = "",
    metrics: Sequence[str] = (),
    extra: Sequence[Section] = (),
    path: Path | None = None,
) -> Path:
    """Write a run's report, to `report.html` in its folder unless told otherwise.

    Args:
        command: what reproduces the run.
        metrics: names of train metrics to plot (masking statistics and the like), besides the loss.
        extra: sections of the caller's own, after the run's figures and before its curves.

    Raises:
        InputError: the folder holds no run, or a run without a single line.
        MissingExtraError: the extra `report` is not installed.
    """
    known = record.read(folder)
    begun = known and [stage for stage in known.stages or ("",) if (folder / stage / log.NAME).exists()]
    lines = log.read(folder) if begun else []
    train = [line for line in lines if line["kind"] == "train"]
    if known is None or not train:
        raise InputError(f"{folder}: no training run to report on; give the folder of a run that has logged a step")
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    if known.stages and begun and (last := record.read(folder / begun[-1])):
        known = replace(known, parameters=last.parameters)
    sections = [
        summary(known, train, evaluations),
        *extra,
        *curves(train, evaluations, metrics),
        *samples([line for line in lines if line["kind"] == "samples"]),
        parameters(known),
        Code("Configuration", json.dumps(known.run, indent=2)),
    ]
    if command:
        sections.append(Code("To reproduce", command, folded=False))
    return render(title, sections, path or folder / NAME, subtitle=f"{folder.resolve().name}, run {known.fingerprint[:12]}")


def summary(known: Record, train: Sequence[log.Line], evaluations: Sequence[log.Line]) -> Facts:
    """The run in a handful of figures."""
    last = train[-1]
    items = [
        ("Tokens", f"{last['tokens']:,}"),
        ("Steps", f"{last['step']:,}"),
        ("Time in steps", duration(last["seconds"])),
        ("Final training loss", figure(last["loss"])),
        *(
            (f"Final {name}, held out", figure(value))
            for name, value in (evaluations[-1]["metrics"] if evaluations else {}).items()
        ),
        ("Tokens per second", f"{last['tokens'] / last['seconds']:,.0f}" if last["seconds"] else "-"),
    ]
    shares = [line["gemm_share"] for line in train if line["gemm_share"] is not None]
    if shares:
        items.append(("Share of GEMM rate", f"{sum(shares) / len(shares):.1%}"))
    count = sum(math.prod(row.shape) for row in known.parameters)
    return Facts("", [*items, ("Parameters", f"{count:,}")])


def curves(train: Sequence[log.Line], evaluations: Sequence[log.Line], metrics: Sequence[str]) -> list[Lines]:
    """Loss, loss terms, the caller's metrics, learning rate, throughput and gradient norm, against tokens."""
    terms = list(dict.fromkeys(name for line in train for name in line["terms"]))
    plots = [
        Lines("Loss", [*_smooth("training", train, ("loss",)), *_held_out(evaluations, ["loss"])], "tokens", "loss", height=3.1)
    ]
    if len(terms) > 1:
        plots += [Lines(f"Loss term: {name}", _smooth(name, train, ("terms", name)), "tokens", name) for name in terms]
    for name in metrics:
        series = [*_smooth("training", train, ("metrics", name)), *_held_out(evaluations, [name])]
        plots.append(Lines(name.replace("_", " ").capitalize(), series, "tokens", name.replace("_", " ")))
    plots += [
        Lines("Learning rate", [_series("", train, ("lr",))], "tokens", "learning rate"),
        Lines("Throughput", _smooth("", train, ("tokens_per_second",)), "tokens", "tokens per second"),
        Lines("Gradient norm", _smooth("", train, ("gradient_norm",)), "tokens", "global norm before clipping"),
    ]
    return [plot for plot in plots if any(series.x for series in plot.series)]


def samples(lines: Sequence[log.Line]) -> list[Table]:
    """Predictions over time, in the order of the training."""
    columns = list(dict.fromkeys(name for line in lines for row in line["rows"] for name in row))
    rows = []
    for line in lines:
        for number, row in enumerate(line["rows"]):
            rows.append(["" if number else f"{line['tokens']:,}", *(row.get(name) for name in columns)])
    return [Table("Sample predictions", ["tokens", *columns], rows)] if rows else []


def parameters(known: Record) -> Table:
    """What the optimizer does to every parameter."""
    columns = ["name", "shape", "group", "optimizer", "learning rate factor", "weight decay"]
    return Table(f"Parameters ({len(known.parameters)} tensors)", columns, record.table_rows(known.parameters), folded=True)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def smoothed(values: Sequence[float]) -> list[float]:
    """A centred average over 5 % of the curve, so that it does not lag; one-sided at its ends."""
    reach, count = len(values) // 40, len(values)
    sums = [0.0, *accumulate(values)]
    spans = [(max(middle - reach, 0), min(middle + reach + 1, count)) for middle in range(count)]
    return [(sums[end] - sums[begin]) / (end - begin) for begin, end in spans]


def _series(name: str, lines: Sequence[log.Line], path: Sequence[str]) -> Series:
    points = [(line["tokens"], value) for line in lines if (value := _value(line, path)) is not None]
    return Series(name, [x for x, _ in points], [y for _, y in points])


def _smooth(name: str, lines: Sequence[log.Line], path: Sequence[str]) -> list[Series]:
    """The raw curve, faint, behind its average."""
    raw = _series(name, lines, path)
    return [Series("", raw.x, raw.y, "faint"), Series(name, raw.x, smoothed(raw.y))]


def _held_out(evaluations: Sequence[log.Line], names: Sequence[str]) -> list[Series]:
    series = [_series("held out", evaluations, ("metrics", name)) for name in names]
    return [Series(one.name, one.x, one.y, "points", colour=1) for one in series if one.x]


def _value(line: Any, path: Sequence[str]) -> float | None:
    for key in path:
        line = line.get(key) if isinstance(line, dict) else None
    return line
