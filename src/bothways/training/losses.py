"""What the losses of runs are of, as far as their records tell: two that are of different things are not to be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Settings of any run (`recipes.runs`; a test holds them to it) that say what its loss is, or how much a part of it counts
OF_LOSS = (
    "predicts", "pairs.task.type", "pairs.weight", "decoder.type", "replaced_tokens.weight", "ngrams", "vectors.task",
    "vectors.weight", "method", "soft", "hints", "loss", "regression", "columns.label",
)  # fmt: skip


def unlike(runs: Sequence[dict[str, Any]], terms: Sequence[Mapping[str, float | None]]) -> list[str]:
    """In what the losses of some runs are of different things; nothing where none of it is known.

    Args:
        runs: their settings, as JSON has them.
        terms: what each loss adds up, by name, and how much it counts; None where the record does not say.
    """
    flat = [_flat(run) for run in runs]
    paths = [path for path in OF_LOSS if any(_at(run, path) != _at(flat[0], path) for run in flat)]
    if paths:
        return list(dict.fromkeys(path.split(".")[0] for path in paths))
    return ["what the loss adds up"] if any(_other(one, terms[0]) for one in terms) else []


def _other(one: Mapping[str, float | None], two: Mapping[str, float | None]) -> bool:
    """Whether two losses add up other things, or by other weights as far as both are known."""
    return one.keys() != two.keys() or any(None not in (one[name], two[name]) and one[name] != two[name] for name in one)


def _flat(run: dict[str, Any]) -> dict[str, Any]:
    """With the settings of the run underneath on the same level, and of stages those that the last one has."""
    found = dict(run.get("base") or {})
    for stage in run.get("stages") or ():
        found |= {name: value for name, value in stage.items() if value is not None}
    return found | run


def _at(run: Any, path: str) -> Any:
    """The setting at a path; None where there is none, or a switch that is off."""
    for name in path.split("."):
        run = run.get(name) if isinstance(run, dict) else None
    return run or None
