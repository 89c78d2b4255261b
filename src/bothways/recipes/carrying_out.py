"""What every recipe does around training: claim a folder, train, save the model, write the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothways.config import to_json
from bothways.errors import InputError, MissingExtraError
from bothways.model.folder import check_expressed
from bothways.model.model import Model
from bothways.objectives.objective import Objective
from bothways.recipes.audit import Audit, describe_corpus, overview
from bothways.recipes.runs import FREE, Embedding, Finetuning, Pretraining, Staged
from bothways.training import record
from bothways.training.loop import Result, train
from bothways.training.report import report
from bothways.training.sections import Section
from bothways.training.settings import Watch
from bothways.training.step import means
from bothways.training.team import team
from bothways.training.trainable import OpenStream

Say = Callable[[str], None]
Run = Pretraining | Staged | Finetuning | Embedding


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished run, the model it made, and where both lie.

    Attributes:
        report: None where the extra is not installed, and in all processes but the first, which alone has the finished model.
        epochs: how often the text was read, over all stages; None of a run on labelled rows.
    """

    result: Result
    model: Model
    folder: Path
    report: Path | None
    epochs: float | None = None


def claim(run: Run, folder: Path) -> None:
    """Make sure that a run may work in `folder`: it is the run's own already, or holds nothing a run would replace.

    Raises:
        InputError: the folder is another run's, or holds a model or a report of other origin.
    """
    known = record.read(folder)
    if known:
        free = run.free if isinstance(run, Staged) else FREE
        record.same_run(known.run, json.loads(to_json(run)), free, folder / record.NAME)
        return
    taken = [name for name in ("model", "report.html") if (folder / name).exists()]
    if taken:
        raise InputError(f"{folder / taken[0]}: exists, and no run of this folder made it; choose another folder")


def carry_out(
    run: Pretraining | Finetuning | Embedding,
    folder: Path,
    objective: Objective[Any],
    open_stream: OpenStream[Any],
    model: Model,
    watch: Watch,
    *,
    title: str,
    command: str,
    metrics: Sequence[str],
    say: Say,
    extra: Callable[[Result], Sequence[Section]] = lambda result: (),
    audit: Audit | None = None,
) -> Trained:
    """Train the objective, whose modules are the model's, and leave `model/` and `report.html` in the folder.

    Raises:
        InputError: the model's family could not save it; it is to be compiled, and has no fixed shapes; or as `train`.
        Interrupted: after Ctrl-C, with everything saved.
    """
    check_expressed(model)  # before hours of training rather than after
    if run.training.compile and not objective.takes_filler:
        what = f"the inputs of {type(objective).__name__} cannot be brought to one shape"
        raise InputError(f"training.compile: {what}, and every other shape would be compiled; set it to false")
    device = str(model.device)
    result = train(objective, open_stream, run.training, folder, device=device, run=to_json(run), free=FREE, watch=watch)
    return deliver(
        result, model, folder, title=title, command=command, metrics=metrics, say=say, extra=extra(result), audit=audit
    )


def deliver(
    result: Result,
    model: Model,
    folder: Path,
    *,
    title: str,
    command: str,
    metrics: Sequence[str],
    say: Say,
    extra: Sequence[Section] = (),
    audit: Audit | None = None,
) -> Trained:
    """Save a trained model, and write the report; `audit`, the account of its text's curation, goes into both."""
    page = None
    if team().first:
        model.eval().save(folder / "model")
        if audit:
            describe_corpus(audit, folder / "model")
        try:
            page = report(
                folder, title=title, command=command, metrics=metrics, extra=[*extra, *(overview(audit) if audit else ())]
            )
        except MissingExtraError as missing:
            say(str(missing))
    team().wait()
    return Trained(result, model, folder, page)


def averages(objective: Objective[Any], batches: Iterable[Any], device: str, names: Collection[str]) -> Mapping[str, float]:
    """The objective's means over held-out batches, of the given sums that it has."""
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for batch in batches:
        moved = batch.to(device)
        for total, part in ((sums, objective(moved)), (counts, objective.counts(moved))):
            for name in part.keys() & set(names):
                total[name] = total.get(name, 0.0) + float(part[name])
    return means(sums, counts)
