"""What every step of curation is: a config that opens into a function from a text to a verdict.

A step looks at one document at a time and knows neither files nor processes. (Duplicates, which need all documents, are
stages of their own.) What it says of each document is counted by whoever calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a step makes of one document.

    Attributes:
        text: the text that goes on, changed or not; None where the document is dropped.
        reason: why it was dropped or changed, a short phrase that many documents share, since the account has a row for
            each; None where the document goes on as it was.
        counts: numbers to add up over all documents, kept or not: what was replaced, how many n-grams matched.
        example: what to show of this document in the account; None for the beginning of the text (of the changed one,
            where it was changed). A step that removes secrets must not show them here.
    """

    text: str | None
    reason: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    example: str | None = None


@runtime_checkable
class Opened(Protocol):
    """A step at work, in one process. Its verdict is a function of the text alone."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the account says once of this step, as JSON can hold it: a classifier's precision, n-grams indexed."""
        ...

    def __call__(self, text: str) -> Verdict: ...


@runtime_checkable
class Step(Protocol):
    """The config of a step."""

    @property
    def type(self) -> str: ...

    def files(self) -> tuple[Path, ...]:
        """The files that are read when the step is opened. Where one changes, the work is not the same any more."""
        ...

    def open(self) -> Opened:
        """Load and prepare all that is needed; the same in every process.

        Raises:
            InputError: a file that cannot be used.
            MissingExtraError: a package is not installed.
        """
        ...
