"""What every recipe does around training: claim a folder, train, save the model, write the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from bothways.config import to_json
from bothways.data.loader import Loader
from bothways.data.sample import Samples
from bothways.errors import InputError, MissingExtraError
from bothways.model.folder import check_expressed
from bothways.model.model import Model
from bothways.objectives.objective import Objective
from bothways.recipes.audit import Audit, describe_corpus, overview
from bothways.recipes.forgetting import Forgetting
from bothways.recipes.runs import (
    FREE,
    Distillation,
    Embedding,
    Finetuning,
    Pretraining,
    Repairing,
    SiameseDistillation,
    Staged,
    TaskDistillation,
    Taught,
)
from bothways.training import record
from bothways.training.loop import Result, train
from bothways.training.optimizer import Group
from bothways.training.report import report
from bothways.training.sections import Section
from bothways.training.settings import TrainingConfig, Watch
from bothways.training.speed import gemm_rate
from bothways.training.step import loss, means
from bothways.training.team import team
from bothways.training.trainable import OpenStream

Say = Callable[[str], None]
OneStage = Pretraining | Finetuning | Embedding | Repairing | Distillation | TaskDistillation | SiameseDistillation
Run = OneStage | Staged


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished run, the model it made, and where both lie.

    Attributes:
        report: None where the extra is not installed, and in all processes but the first, which alone has the finished model.
        epochs: how often the text was read, over all stages; None of a run on labelled rows.
        forgetting: what became of general text, where a run was given some.
    """

    result: Result
    model: Model
    folder: Path
    report: Path | None
    epochs: float | None = None
    forgetting: Forgetting | None = None


def claim(run: Run, folder: Path, *beside: str) -> None:
    """Make sure that a run may work in `folder`: it is the run's own already, or holds nothing a run would replace.

    Args:
        beside: names of what the run leaves there besides its model and its report.

    Raises:
        InputError: the folder is another run's, or holds a model, a report or one of `beside` of other origin.
    """
    known = record.read(folder)
    if known:
        record.same_run(known.run, json.loads(to_json(run)), _free(run), folder / record.NAME)
        return
    made = ("model", "report.html", *beside, *(["generator"] if _has_generator(run) else []))
    taken = [name for name in made if (folder / name).exists()]
    if taken:
        raise InputError(f"{folder / taken[0]}: exists, and no run of this folder made it; choose another folder")


def _has_generator(run: Run) -> bool:
    first = run.base if isinstance(run, Staged) else run
    return isinstance(first, Pretraining) and first.replaced_tokens is not None


def _free(run: Run) -> tuple[str, ...]:
    return run.free if isinstance(run, Staged | Taught) else FREE


def carry_out(
    run: OneStage,
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
    groups: Sequence[Group] | None = None,
    finish: Callable[[], object] = lambda: None,
    beside: Mapping[str, Model] = MappingProxyType({}),
) -> Trained:
    """Train the objective, whose modules are the model's, and leave `model/` and `report.html` in the folder.

    Args:
        groups: of parameters, as `train` takes them.
        finish: makes the model of what was trained, where its modules are not all the objective's own.
        beside: other models on modules of the objective, each saved in a folder of its name.

    Raises:
        InputError: the model's family could not save it; it is to be compiled, and has no fixed shapes; or as `train`.
        Interrupted: after Ctrl-C, with everything saved.
    """
    check_expressed(model)  # before hours of training rather than after
    check_compiled(run.training, objective)
    device = str(model.device)
    result = train(
        objective, open_stream, run.training, folder,
        device=device, run=to_json(run), free=_free(run), watch=watch, groups=groups,
    )  # fmt: skip
    finish()
    return deliver(
        result, model, folder,
        title=title, command=command, metrics=metrics, say=say, extra=extra(result), audit=audit, beside=beside,
    )  # fmt: skip


def check_compiled(training: TrainingConfig, objective: Objective[Any]) -> None:
    """Raises InputError where layers are to be compiled, and inputs have no fixed shapes."""
    if training.compile and not objective.takes_filler:
        what = f"the inputs of {type(objective).__name__} cannot be brought to one shape"
        raise InputError(f"training.compile: {what}, and every other shape would be compiled; set it to false")


def weighted_averages(objective: Objective[Any], batches: Iterable[Any], device: str, names: Collection[str]) -> dict[str, float]:
    """`averages` of the losses and of these sums, with the weighted `loss` of them all in front."""
    found = averages(objective, batches, device, {*objective.weights, *names})
    return {**found, "loss": loss(objective.weights, found)}


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
    beside: Mapping[str, Model] = MappingProxyType({}),
) -> Trained:
    """Save a trained model, and write the report; `audit`, the account of its text's curation, goes into both."""
    page = None
    if team().first:
        for name, one in {"model": model, **beside}.items():
            one.eval().save(folder / name)
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


def watching(
    run: Finetuning | Repairing, objective: Objective[Any], held: Samples | None, device: str, names: Collection[str]
) -> Watch:
    """Of a run on labelled rows: the given means over the rows held out, where there are any, and the machine's speed."""
    batches = [] if held is None else list(Loader(held, run.batching, objective.prepare, run.training.seed).evaluation())
    return Watch(
        evaluate=(lambda: averages(objective, batches, device, names)) if batches else None,
        rate=gemm_rate(device, torch.float32),
    )


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
