"""A figure against its limit, and the limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from bothways.config import config, override
from bothways.errors import InputError

Share = Annotated[float, Field(ge=0, le=1)]
Most = Annotated[float, Field(ge=0)]


@config
class Budget:
    """How far a candidate may lie from its reference. The defaults are for the same weights in float32.

    Attributes:
        mean_cosine, least_cosine: at least, of the sentence vectors of both.
        vectors: at most, the largest difference of sentence vectors, by the reference's largest number.
        neighbours: at least, the share of nearest texts (the first, and the first ten) that are the same.
        layers: at most, the largest difference after any layer, by the reference's largest value there.
        logits: at most, as `layers`, of the masked-language-model head.
        top1: at least, how often that head's best token is the same.
        outputs: at most, the largest difference of a class's probability (or of a regression's value).
        flips: at most, the share of texts that get another label.
    """

    mean_cosine: Share = 0.9999
    least_cosine: Share = 0.9999
    vectors: Most = 1e-4
    neighbours: Share = 1.0
    layers: Most = 1e-4
    logits: Most = 1e-4
    top1: Share = 1.0
    outputs: Most = 1e-4
    flips: Share = 0.0


FLOAT32 = Budget()
# Weights rounded to 8 bits of mantissa (docs/verify.md has what is measured).
BFLOAT16 = Budget(
    mean_cosine=0.9999, least_cosine=0.999, vectors=0.03, neighbours=0.97, layers=0.03, logits=0.03, top1=0.97, outputs=0.03,
    flips=0.01,
)  # fmt: skip
INT8 = Budget(
    mean_cosine=0.995, least_cosine=0.98, vectors=0.2, neighbours=0.9, layers=0.2, logits=0.2, top1=0.9, outputs=0.1, flips=0.03
)
_NAMED = {"float32": FLOAT32, "bfloat16": BFLOAT16, "int8": INT8}


def budget_of(words: Sequence[str]) -> Budget:
    """A budget from the words of a command: its name (`bfloat16`), then changes of it (`layers=0.01`).

    Raises:
        InputError: no such name or field, or a value that is none.
    """
    names = [word for word in words if "=" not in word]
    if len(names) > 1 or any(name not in _NAMED for name in names):
        wrong = next((name for name in names if name not in _NAMED), " and ".join(names))
        raise InputError(f"--budget {wrong}: give one of {', '.join(_NAMED)}, and changes as NAME=VALUE (layers=0.01)")
    budget = _NAMED[names[0]] if names else FLOAT32
    try:
        return override(budget, [word for word in words if "=" in word])
    except InputError as error:
        raise InputError(str(error).replace("--set", "--budget").replace(" in the run", "")) from None


@config
class Check:
    """One figure and what the budget says of it.

    Attributes:
        found: for people; `value` is the figure, None where it is not finite or none.
        note: where, or of how much.
        budget: for people; `limit` is the number in it.
        passed: None where the budget says nothing of it.
    """

    name: str
    found: str
    note: str = ""
    value: float | None = None
    limit: float | None = None
    budget: str = ""
    passed: bool | None = None

    def line(self) -> str:
        """The check in a part of a line."""
        return f"{self.name}: {self.found} (budget {self.budget}{f'; {self.note}' if self.note else ''})"


def at_least(name: str, value: float, limit: float, note: str = "") -> Check:
    return _check(name, f"{value:.6f}", value, limit, f"at least {limit:g}", value >= limit, note)


def at_most(name: str, value: float, limit: float, note: str = "") -> Check:
    return _check(name, f"{value:.1e}" if value else "0", value, limit, f"at most {limit:g}", value <= limit, note)


def equal(name: str, reference: str, candidate: str) -> Check:
    same = reference == candidate
    found = reference if same else f"{reference}, candidate: {candidate}"
    return Check(name=name, found=found, budget="equal", passed=same)


def untold(name: str, why: str) -> Check:
    """Something that cannot be compared, and is not judged."""
    return Check(name=name, found="not compared", note=why)


def _check(name: str, shown: str, value: float, limit: float, budget: str, passed: bool, note: str) -> Check:
    finite = math.isfinite(value)  # what is not finite is within no limit, and in no JSON
    return Check(
        name=name,
        found=shown if finite else "not finite",
        note=note,
        value=value if finite else None,
        limit=limit,
        budget=budget,
        passed=finite and passed,
    )
