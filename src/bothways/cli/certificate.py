"""A certificate as the terminal shows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from bothways.evaluation.certificate import Certificate, Party
    from bothways.evaluation.checks import Check

_MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("·", "dim")}
# The bar of a layer's difference: from nothing that float32 can tell to all that there is.
_LEAST, _MOST, _BAR = 1e-8, 1.0, 24


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows on stderr what is being compared, where that is a terminal."""
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda stage: status.update(f"comparing {stage}")


def draw(certificate: Certificate, written: Path | None) -> None:
    """The whole certificate, for people."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False)

    def line(text: str = "", style: str = "") -> None:
        console.print(text, style=style, markup=False, soft_wrap=True)

    line()
    line(f"  A  {_named(certificate.reference)}")
    line(f"  B  {_named(certificate.candidate)}")
    cut = f", {certificate.cut:,} of them cut" if certificate.cut else ""
    line(f"     on {certificate.texts:,} texts ({certificate.tokens:,} tokens{cut}), {certificate.device}", "dim")
    line()
    console.print(_checks(certificate.checks))
    if certificate.layers:
        _draw_layers(console, certificate)
    if certificate.latency:
        _draw_latency(console, certificate)
    line()
    if certificate.verdict == "passed":
        line("  PASSED  B can stand for A: nothing is outside the budget", "bold green")
    else:
        line("  FAILED  B cannot stand for A", "bold red")
    if written:
        line(f"          {written}", "dim")
    line()


def _named(party: Party) -> str:
    if party.family is None:
        return f"{party.name} ({party.api} server)"
    return f"{party.name}  ({party.family}, {party.layers} layers of {party.hidden_size}, {party.parameters or 0:,} parameters)"


def _checks(checks: tuple[Check, ...]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold", style="dim")
    for check in checks:
        mark, style = _MARKS[check.passed]
        name = Text.assemble(("  " + mark + "  ", style))
        name.append(check.name, "" if check.passed is not False else "bold")
        table.add_row(name, Text(check.found, style if check.passed is False else ""), Text(check.budget), Text(check.note))
    return table


def _draw_layers(console: Console, certificate: Certificate) -> None:
    """A line a layer: a bar on a logarithmic scale, red from where the budget ends."""
    from rich.text import Text

    limit = certificate.budget.layers
    console.print(f"\n  layers, largest difference by the largest value (budget {limit:g})", markup=False)
    width = max(len(layer.name) for layer in certificate.layers)
    for layer in certificate.layers:
        gap = layer.difference
        inside = gap is not None and gap <= limit
        full = _MOST if gap is None else min(max(gap, _LEAST), _MOST)
        cells = round(_BAR * math.log(full / _LEAST) / math.log(_MOST / _LEAST))
        text = Text(f"      {layer.name:<{width}}  ")
        text.append(f"{'not finite' if gap is None else f'{gap:.1e}' if gap else '0':>10}  ", "" if inside else "bold red")
        text.append("\u2501" * cells, "green" if inside else "red")
        if layer.name == certificate.first_diverging:
            text.append("  first outside the budget", "red")
        console.print(text)


def _draw_latency(console: Console, certificate: Certificate) -> None:
    assert certificate.latency
    console.print("\n  speed, medians in turns              A            B", markup=False)
    for name, (a, b) in (("one text", certificate.latency.one), ("all texts", certificate.latency.all)):
        faster = f"B is {a / b:.2f} times as fast" if b else ""
        console.print(f"      {name:<22}  {_time(a):>10}   {_time(b):>10}   {faster}", markup=False)


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms" if seconds < 1 else f"{seconds:,.2f} s"
