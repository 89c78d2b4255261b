"""What each step did: counted in every process, added up afterwards, the same in whatever order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bothways.data.curation.step import Verdict

EXAMPLES = 3
LONGEST_EXAMPLE = 200
# Beside the steps, which are numbered from 1: what was read, and the main texts taken out of pages
READ, EXTRACTION = -1, 0
Outcome = Literal["dropped", "changed"]


@dataclass(slots=True)
class Amount:
    """Documents and their characters."""

    documents: int = 0
    characters: int = 0

    def add(self, documents: int, characters: int) -> None:
        self.documents += documents
        self.characters += characters

    def json(self) -> dict[str, int]:
        return {"documents": self.documents, "characters": self.characters}


@dataclass(slots=True)
class Reason:
    """A reason, how much it concerns, and the first examples, each behind the number of its place in the sources."""

    amount: Amount = field(default_factory=Amount)
    examples: list[tuple[int, dict[str, str]]] = field(default_factory=list)

    def keep(self, examples: Iterable[tuple[int, dict[str, str]]]) -> None:
        self.examples = sorted([*self.examples, *examples], key=lambda one: one[0])[:EXAMPLES]


@dataclass(slots=True)
class Tally:
    """What one step did to the documents it saw."""

    seen: Amount = field(default_factory=Amount)
    kept: Amount = field(default_factory=Amount)
    changed: Amount = field(default_factory=Amount)
    dropped: Amount = field(default_factory=Amount)
    reasons: dict[tuple[Outcome, str], Reason] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def note(self, before: str, verdict: Verdict, where: str, order: int, **more: str) -> None:
        """Count one verdict on the text `before`, found at `where`, the `order`-th place of all sources.

        Args:
            more: what its example says besides.
        """
        self.seen.add(1, len(before))
        for name, count in verdict.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        if verdict.text is None:
            self.dropped.add(1, len(before))
            self._reason("dropped", verdict, before, before, {"where": where, **more}, order)
            return
        self.kept.add(1, len(verdict.text))
        if verdict.reason is not None:
            self.changed.add(1, len(verdict.text))
            self._reason("changed", verdict, before, verdict.text, {"where": where, **more}, order)

    def _reason(self, outcome: Outcome, verdict: Verdict, before: str, shown: str, example: dict[str, str], order: int) -> None:
        reason = self.reasons.setdefault((outcome, verdict.reason or "no reason given"), Reason())
        reason.amount.add(1, len(before) if outcome == "dropped" else len(shown))
        if len(reason.examples) < EXAMPLES or order < reason.examples[-1][0]:
            text = (shown if verdict.example is None else verdict.example)[:LONGEST_EXAMPLE]
            reason.keep([(order, example | {"text": text})])

    def merge(self, other: Tally) -> None:
        for mine, theirs in zip(self._amounts(), other._amounts(), strict=True):
            mine.add(theirs.documents, theirs.characters)
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        for key, reason in other.reasons.items():
            mine = self.reasons.setdefault(key, Reason())
            mine.amount.add(reason.amount.documents, reason.amount.characters)
            mine.keep(reason.examples)

    def _amounts(self) -> tuple[Amount, ...]:
        return self.seen, self.kept, self.changed, self.dropped

    def json(self) -> dict[str, Any]:
        """As the account shows it: the most frequent reasons first."""
        ranked = sorted(self.reasons.items(), key=lambda item: (-item[1].amount.documents, item[0][1], item[0][0]))
        return {
            "seen": self.seen.json(),
            "kept": self.kept.json(),
            "changed": self.changed.json(),
            "dropped": self.dropped.json(),
            "reasons": [
                {"reason": name, "outcome": outcome, **reason.amount.json(), "examples": [one for _, one in reason.examples]}
                for (outcome, name), reason in ranked
            ],
            "counts": dict(sorted(self.counts.items())),
        }


def write_tallies(tallies: Mapping[int, Tally]) -> str:
    """Tallies by the number of their step, as a file of one process holds them."""
    return json.dumps({number: _dump(tally) for number, tally in tallies.items()}, ensure_ascii=False)


def read_tallies(files: Iterable[Path]) -> dict[int, Tally]:
    """The tallies of all processes, added up."""
    total: dict[int, Tally] = {}
    for file in files:
        for number, data in json.loads(file.read_text(encoding="utf-8")).items():
            total.setdefault(int(number), Tally()).merge(_load(data))
    return total


def _dump(tally: Tally) -> dict[str, Any]:
    reasons = [[*key, reason.amount.json(), reason.examples] for key, reason in tally.reasons.items()]
    return {"amounts": [amount.json() for amount in tally._amounts()], "reasons": reasons, "counts": tally.counts}


def _load(data: Mapping[str, Any]) -> Tally:
    tally = Tally(*(Amount(**amount) for amount in data["amounts"]), counts=dict(data["counts"]))
    for outcome, name, amount, examples in data["reasons"]:
        tally.reasons[outcome, name] = Reason(Amount(**amount), [(order, example) for order, example in examples])
    return tally
