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
# Of metrics whose names say too little
_TITLES = {"masked": "Tokens to be predicted, of all", "mask_token": "Of these, shown as the mask token"}


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
    machines = [line for line in lines if line["kind"] == "machine"]
    if known.stages and begun and (last := record.read(folder / begun[-1])):
        known = replace(known, parameters=last.parameters, weights=last.weights)
    sections = [
        summary(known, train, evaluations, machines),
        *extra,
        *curves(train, evaluations, metrics, machines),
        *samples([line for line in lines if line["kind"] == "samples"]),
        *terms_table(known, train[-1]),
        *machine_table(machines),
        parameters(known),
        Code("Configuration", json.dumps(known.run, indent=2)),
    ]
    if command:
        sections.append(Code("To reproduce", command, folded=False))
    return render(title, sections, path or folder / NAME, subtitle=f"{folder.resolve().name}, run {known.fingerprint[:12]}")


def summary(
    known: Record, train: Sequence[log.Line], evaluations: Sequence[log.Line], machines: Sequence[log.Line] = ()
) -> Facts:
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
    if filler := [line["filler"] for line in train if line.get("filler")]:
        items.append(("Filler", f"{sum(filler) / len(train):.2%}"))
    for name, values in (("Share of matrix products", shares(train)), ("MFU", utilisations(train, machines))):
        if values.x:
            items.append((name, f"{sum(values.y) / len(values.y):.1%}"))
    if memory := last.get("memory"):
        items.append(("Most memory", f"{memory / 2**30:.2f} GiB"))
    count = sum(math.prod(row.shape) for row in known.parameters)
    return Facts("", [*items, ("Parameters", f"{count:,}")])


def curves(
    train: Sequence[log.Line], evaluations: Sequence[log.Line], metrics: Sequence[str], machines: Sequence[log.Line] = ()
) -> list[Lines]:
    """Loss, its terms, the caller's metrics, mixture, learning rate, throughput, shares of the machine's rate, gradient norm.

    Against tokens; the loss against time, too.
    """
    terms = list(dict.fromkeys(name for line in train for name in line["terms"]))
    name, unit = time_unit(train[-1]["seconds"])
    loss = [*_smooth("training", train, ("loss",)), *_held_out(evaluations, ["loss"])]
    in_time = [*_smooth("training", train, ("loss",), unit), *_held_out(evaluations, ["loss"], unit)]
    plots = [
        Lines("Loss", loss, "tokens", "loss", height=3.1),
        Lines("Loss against time", in_time, f"{name} of steps", "loss"),
    ]
    if len(terms) > 1:
        plots += [Lines(f"Loss term: {name}", _smooth(name, train, ("terms", name)), "tokens", name) for name in terms]
    for name in metrics:
        series = [*_smooth("training", train, ("metrics", name)), *_held_out(evaluations, [name])]
        plots.append(Lines(_TITLES.get(name, name.replace("_", " ").capitalize()), series, "tokens", name.replace("_", " ")))
    plots += [
        Lines("Learning rate", [_series("", train, ("lr",))], "tokens", "learning rate"),
        Lines("Throughput", _smooth("", train, ("tokens_per_second",)), "tokens", "tokens per second"),
        *_machine_rate(train, machines),
        Lines("Gradient norm", _smooth("", train, ("gradient_norm",)), "tokens", "global norm before clipping"),
    ]
    return [replace(plot, marks=_stages(train, plot)) for plot in plots if any(series.x for series in plot.series)]


def terms_table(known: Record, last: log.Line) -> list[Table]:
    """What the loss adds up, by weight; nothing where it is one thing."""
    rows = [
        (name, f"{weight:g}", last["terms"].get(name), None if name not in last["terms"] else weight * last["terms"][name])
        for name, weight in known.weights.items()
    ]
    if len(rows) < 2:
        return []
    shown = [(name, weight, *map(figure, values)) for name, weight, *values in rows]
    return [Table("What the loss adds up", ("term", "weight", "at last", "weighted"), shown)]


def machine_table(machines: Sequence[log.Line]) -> list[Table]:
    """Which machine each process of the run was on."""
    rows = [
        (
            f"{line['step']:,}", line["name"], line["cores"], line["threads"],
            None if line["memory"] is None else f"{line['memory'] / 2**30:.0f} GiB", line["system"],
            ", ".join(f"{name} {version}" for name, version in line["versions"].items()),
        )
        for line in machines
    ]  # fmt: skip
    columns = ("seen at step", "processor or GPU", "cores", "threads", "memory", "system", "versions")
    return [Table("Machine", columns, rows)] if rows else []


def shares(train: Sequence[log.Line]) -> Series:
    """Of the machine's measured rate of matrix products, what training reached."""
    return _series("of its measured rate", train, ("gemm_share",))


def utilisations(train: Sequence[log.Line], machines: Sequence[log.Line]) -> Series:
    """The same of the rate that the maker of a GPU states (model FLOPs utilisation); empty where none is known."""
    factors = {line["rate"] / line["peak"] for line in machines if line.get("rate") and line.get("peak")}
    if len(factors) != 1:  # none, or the run went on with another GPU
        return Series("MFU", [], [])
    factor = factors.pop()
    reached = shares(train)
    return Series("of its maker's peak (MFU)", reached.x, [factor * value for value in reached.y], colour=1)


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


def time_unit(seconds: float) -> tuple[str, float]:
    """What to count so much time in: its name, and its seconds."""
    return next(
        (name, unit)
        for name, unit in (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
        if seconds >= 2 * unit or unit == 1
    )


def _machine_rate(train: Sequence[log.Line], machines: Sequence[log.Line]) -> list[Lines]:
    reached, utilised = shares(train), utilisations(train, machines)
    sampled = _series("", train, ("gemm_rate",))
    found = (one for one in (reached, utilised) if one.x)
    percent = [Series(one.name, one.x, [100 * y for y in smoothed(one.y)], colour=one.colour) for one in found]
    return [
        Lines("Share of the machine's matrix products", percent, "tokens", "%"),
        Lines(
            "Rate of the machine's products, sampled meanwhile",
            [replace(sampled, y=[y / 1e9 for y in sampled.y])],
            "tokens",
            "GFLOP/s",
        ),
    ]


def _stages(train: Sequence[log.Line], plot: Lines) -> list[tuple[float, str]]:
    """Where each stage of a run begins on a plot's axis; nothing for a run of one."""
    begins, before = [], {"tokens": 0, "seconds": 0.0, "stage": None}
    unit = time_unit(train[-1]["seconds"])[1]
    for line in train:
        if line.get("stage") != before.get("stage"):
            begins.append((before["tokens"] if plot.xlabel == "tokens" else before["seconds"] / unit, line["stage"]))
        before = line
    return begins if len(begins) > 1 else []


def _series(name: str, lines: Sequence[log.Line], path: Sequence[str], unit: float | None = None) -> Series:
    """Against tokens, or against time in units of so many seconds."""
    points = [
        (line["tokens"] if unit is None else line["seconds"] / unit, value)
        for line in lines
        if (value := _value(line, path)) is not None
    ]
    return Series(name, [x for x, _ in points], [y for _, y in points])


def _smooth(name: str, lines: Sequence[log.Line], path: Sequence[str], unit: float | None = None) -> list[Series]:
    """The raw curve, faint, behind its average."""
    raw = _series(name, lines, path, unit)
    return [Series("", raw.x, raw.y, "faint"), Series(name, raw.x, smoothed(raw.y))]


def _held_out(evaluations: Sequence[log.Line], names: Sequence[str], unit: float | None = None) -> list[Series]:
    series = [_series("held out", evaluations, ("metrics", name), unit) for name in names]
    return [Series(one.name, one.x, one.y, "points", colour=1) for one in series if one.x]


def _value(line: Any, path: Sequence[str]) -> float | None:
    for key in path:
        line = line.get(key) if isinstance(line, dict) else None
    return line
