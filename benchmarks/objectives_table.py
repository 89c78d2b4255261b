"""The table of `objectives.py`: a row for each variant, with intervals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bothways.evaluation.significance import paired, summary

SCRATCH = "from-scratch"
Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def table_of(found: Runs, scratch: Mapping[str, Sequence[float]], plain: str) -> tuple[str, dict[str, Any]]:
    """The page, and the differences from `plain` of each variant: paired by seed of pretraining and of fine-tuning."""
    tasks = list(scratch)
    columns = ["objective", "tokens (M)", "held-out loss", *tasks, "mean", f"mean, beside {plain}"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    differences: dict[str, Any] = {}
    for name, runs in found.items():
        scores = {task: [value for run in runs for value in run["downstream"][task]] for task in tasks}
        gap = ""
        if name != plain:
            gaps = {task: _difference(values, found[plain], task) for task, values in _with_mean(scores).items()}
            differences[name] = gaps
            gap = f"{100 * gaps['mean']['mean']:+.1f} [{100 * gaps['mean']['low']:+.1f}, {100 * gaps['mean']['high']:+.1f}]"
        tokens = f"{statistics.mean(run['tokens'] for run in runs) / 1e6:.2f}"
        lines.append(_row(name, tokens, _loss(runs), _with_mean(scores), gap))
    lines.append(_row(SCRATCH.replace("-", " "), "0", "", _with_mean(scratch), ""))
    return "\n".join(lines) + "\n", differences


def _with_mean(scores: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """With the mean of the tasks, seed by seed."""
    return {**{task: list(values) for task, values in scores.items()}, "mean": _means(scores)}


def _means(scores: Mapping[str, Sequence[float]]) -> list[float]:
    return [statistics.mean(values) for values in zip(*scores.values(), strict=True)]


def _difference(values: Sequence[float], runs: Sequence[Mapping[str, Any]], task: str) -> dict[str, Any]:
    """Beside the plain variant's values of the same task, or of the mean of all."""
    each = [_means(run["downstream"]) if task == "mean" else run["downstream"][task] for run in runs]
    return asdict(paired(values, [value for part in each for value in part]))


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
