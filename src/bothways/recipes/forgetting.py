"""What a model forgets of general text while it learns a domain: the same masked tokens, predicted before and after.

A run that is given general text measures it wherever it measures its own held-out text, before the first step too
(`general_text`). The log has both, and all that is told of them comes from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothways.model.card import add_section
from bothways.training import log
from bothways.training.report import figure
from bothways.training.sections import Table

# Before the names of general text's figures, in evaluation lines
GENERAL = "general/"
_TEXTS = {"general text": GENERAL, "the domain, held out": ""}
_NOTE = "Cross-entropy in nats, and the share of masked tokens whose likeliest token is the right one; the same masks each time."


@dataclass(frozen=True)
class Forgetting:
    """Held-out figures before the first step and after the last one.

    Attributes:
        before, after: by text, its `loss` and `accuracy`; None where one was not finite.
        predicted: masked tokens of the general text.
    """

    before: Mapping[str, Mapping[str, float | None]]
    after: Mapping[str, Mapping[str, float | None]]
    predicted: int

    @classmethod
    def of(cls, folder: Path, predicted: int) -> Forgetting:
        """Of a finished run's log."""
        lines = [line["metrics"] for line in log.read(folder) if line["kind"] == "evaluation"]
        first, last = (
            {text: {name: line[f"{prefix}{name}"] for name in ("loss", "accuracy")} for text, prefix in _TEXTS.items()}
            for line in (lines[0], lines[-1])
        )
        return cls(first, last, predicted)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("text", "loss before", "after", "change", "accuracy before", "after", "change")

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """A row for each text."""
        return [(text, *self._row(text, "loss", figure), *self._row(text, "accuracy", _percent)) for text in self.before]

    @property
    def table(self) -> Table:
        return Table("Learned and forgotten", self.columns, self.rows, note=f"{_NOTE} {self.predicted:,} of the general text.")

    @property
    def data(self) -> dict[str, Any]:
        """For JSON."""
        return {"before": self.before, "after": self.after, "masked_tokens_of_general_text": self.predicted}

    def describe(self, folder: Path) -> None:
        """Say it in the card of a model folder. No card, no section."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        add_section(folder, "forgetting", f"## Learned and forgotten\n\n{_NOTE}\n\n{table}")

    def _row(self, text: str, name: str, shown: Callable[[float | None], str]) -> tuple[str, str, str]:
        before, after = self.before[text][name], self.after[text][name]
        change = None if before is None or after is None else after - before
        sign = "" if change is None or change < 0 else "+"
        return shown(before), shown(after), f"{sign}{shown(change)}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
