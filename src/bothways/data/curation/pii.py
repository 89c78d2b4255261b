"""Personal data in running text, found by form and checksum, and replaced by what kind of thing it was.

Names and streets are not looked for: without a model they cannot be told from the people and places of a novel.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic

from bothways.config import config
from bothways.data.curation import pii_patterns as patterns
from bothways.data.curation.pii_patterns import Kind
from bothways.data.curation.step import Verdict

KINDS: tuple[Kind, ...] = get_args(Kind)

# Where two overlap, the first named stays: a URL's password is no e-mail address, an account no telephone.
_FINDERS: dict[Kind, Callable[[str, int, int], patterns.Found]] = {
    "url": patterns.urls,
    "email": patterns.emails,
    "iban": patterns.ibans,
    "card": patterns.cards,
    "ssn": patterns.social_security_numbers,
    "ip": patterns.ip_addresses,
    "phone": patterns.phones,
}
_TAGS: dict[Kind, str] = {kind: f"[{kind.upper()}]" for kind in KINDS}
# Of ranges that are set aside for examples: RFC 2606, RFC 5737, 555-01xx; an account and a card that no bank gives out.
_EXAMPLES: dict[Kind, str] = {
    "url": "https://www.example.com/",
    "email": "someone@example.com",
    "iban": "DE00 0000 0000 0000 0000 00",
    "card": "0000 0000 0000 0000",
    "ssn": "000-00-0000",
    "ip": "192.0.2.1",
    "phone": "202-555-0100",
}
# Nothing is looked for but around these. All begin with few characters, so that `re` can leap from one to the next.
_ANCHORS = (
    re.compile("@"),
    re.compile("://"),
    re.compile("::"),
    re.compile(r"[\[({] ?(?:at|AT|At) ?[\])}]"),
    re.compile(r"[0-9](?:[^0-9]{0,3}[0-9]){5}"),
    re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"),
)
_BEFORE, _BEHIND, _LONGEST = 160, 80, 2000
_SPACE = re.compile(r"\s")
_SHOWN = 90


@dataclass(frozen=True, slots=True)
class Span:
    """Where something of a kind stands: `text[begin:end]`."""

    kind: Kind
    begin: int
    end: int


@config
class Pii:
    """Replace personal data. Best the first step of a curation, whose account shows examples of what each step was given.

    Attributes:
        kinds: what is looked for. `url` is one that holds a password or a key; `ssn` the United States' social security number.
        replacement: `tag` writes [EMAIL], [PHONE] ...; `example` something of the same form that belongs to nobody.
    """

    type: Literal["pii"] = "pii"
    kinds: Annotated[tuple[Kind, ...], pydantic.Field(min_length=1)] = KINDS
    replacement: Literal["tag", "example"] = "tag"

    def files(self) -> tuple[Path, ...]:
        return ()

    def open(self) -> Scrubber:
        return Scrubber(self)


@dataclass(frozen=True)
class Scrubber:
    """`Pii` at work."""

    pii: Pii

    @property
    def facts(self) -> Mapping[str, Any]:
        return {}

    def __call__(self, text: str) -> Verdict:
        spans = find_pii(text, self.pii.kinds)
        if not spans:
            return Verdict(text)
        clean = replace(text, spans, self.pii.replacement)
        first = max(spans[0].begin - _SHOWN, 0)  # nothing before it was changed
        counts = dict(Counter(span.kind for span in spans))
        return Verdict(clean, "personal data replaced", counts, clean[first : first + 2 * _SHOWN].strip())


def find_pii(text: str, kinds: Sequence[Kind] = KINDS) -> list[Span]:
    """What there is of these kinds, in the order of the text, without overlaps."""
    taken: list[Span] = []
    windows = _windows(text)
    for kind in [kind for kind in KINDS if kinds.count(kind)]:
        for window in windows:
            for begin, end in _FINDERS[kind](text, *window):
                place = bisect.bisect(taken, begin, key=_begin)
                before, behind = taken[max(place - 1, 0) : place], taken[place : place + 1]
                if all(span.end <= begin for span in before) and all(span.begin >= end for span in behind):
                    taken.insert(place, Span(kind, begin, end))
    return taken


def replace(text: str, spans: Sequence[Span], replacement: Literal["tag", "example"] = "tag") -> str:
    """The text with each span, in order, replaced."""
    stand_ins = _TAGS if replacement == "tag" else _EXAMPLES
    parts, done = [], 0
    for span in spans:
        parts += [text[done : span.begin], stand_ins[span.kind]]
        done = span.end
    return "".join((*parts, text[done:]))


def _windows(text: str) -> list[tuple[int, int]]:
    """The parts of a text worth looking at: around every anchor, joined where they touch."""
    anchors = sorted(match.span() for anchor in _ANCHORS for match in anchor.finditer(text))
    windows: list[tuple[int, int]] = []
    for begin, end in anchors:
        if windows and end + _BEHIND <= windows[-1][1]:
            continue
        space = _SPACE.search(text, end + _BEHIND, end + _BEHIND + _LONGEST)
        begin, end = max(begin - _BEFORE, 0), space.start() if space else min(end + _BEHIND + _LONGEST, len(text))
        if windows and begin <= windows[-1][1]:
            windows[-1] = (windows[-1][0], end)
        else:
            windows.append((begin, end))
    return windows


def _begin(span: Span) -> int:
    return span.begin
