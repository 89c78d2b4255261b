"""The table of `objectives.py`: a row for each variant, with intervals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from bothways.evaluation.significance import paired, summary

SCRATCH = "from-scratch"
Runs = Mapping[str, Sequence[Mapping[str, Any]]]
Scores: TypeAlias = dict[str, list[float]]


def table_of(found: Runs, scratch: Scores | None, plain: str) -> tuple[str, dict[str, Any]]:
    """The page, and the differences from `plain` of each variant: paired by seed of pretraining and of fine-tuning.

    A variant that has no run yet has no row, and one that shares no seed with `plain` no difference.
    """
    tasks = list(next(runs[0]["downstream"] for runs in found.values() if runs))
    columns = ["objective", "tokens (M)", "held-out loss", *tasks, "mean", f"mean, beside {plain}"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    differences: dict[str, Any] = {}
    for name, runs in found.items():
        if not runs:
            continue
        scores, gap = _scores(runs, tasks), ""
        if name != plain and (seeds := {run["seed"] for run in runs} & {run["seed"] for run in found[plain]}):
            ours, others = (
                _with_mean(_scores([run for run in one if run["seed"] in seeds], tasks)) for one in (runs, found[plain])
            )
            gaps = differences[name] = {task: asdict(paired(ours[task], others[task])) for task in ours}
            gap = f"{100 * gaps['mean']['mean']:+.1f} [{100 * gaps['mean']['low']:+.1f}, {100 * gaps['mean']['high']:+.1f}]"
        tokens = f"{statistics.mean(run['tokens'] for run in runs) / 1e6:.2f}"
        lines.append(_row(name, tokens, _loss(runs), _with_mean(scores), gap))
    if scratch is not None:
        lines.append(_row(SCRATCH.replace("-", " "), "0", "", _with_mean(scratch), ""))
    return "\n".join(lines) + "\n", differences


def _scores(runs: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> Scores:
    """Of each task, run by run."""
    return {task: [value for run in runs for value in run["downstream"][task]] for task in tasks}


def _with_mean(scores: Scores) -> Scores:
    """With the mean of the tasks, seed by seed."""
    return {**scores, "mean": [statistics.mean(values) for values in zip(*scores.values(), strict=True)]}


def _loss(runs: Sequence[Mapping[str, Any]]) -> str:
    key = "generator" if "generator" in runs[0] else "loss"
    values = [run[key] for run in runs]
    spread = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}" + (" (the generator's)" if key == "generator" else "")


def _row(name: str, tokens: str, loss: str, scores: Mapping[str, Sequence[float]], gap: str) -> str:
    cells = [_percent(values) for values in scores.values()]
    return "| " + " | ".join([name, tokens, loss, *cells, gap]) + " |"


def _percent(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{100 * values[0]:.1f}"
    one = summary(values)
    return f"{100 * one.mean:.1f} ± {100 * (one.high - one.mean):.1f}"
