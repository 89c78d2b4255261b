"""Running stages on datatrove's executors: on this machine, on Ray, on Slurm."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bothways.data.curation.lifeline import children_die_with_us
from bothways.data.curation.recipe import Local, Ray, Slurm
from bothways.data.curation.stages import Stage
from bothways.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from datatrove.executor.base import PipelineExecutor


def run_stages(stages: Sequence[Stage], executor: Local | Ray | Slurm, work: Path) -> bool:
    """Run the stages, leaving out what is done already; False where they were only submitted.

    Raises:
        InputError: something that was given cannot be used.
        MissingExtraError: datatrove, or what a step needs, is not installed.
        RuntimeError: a rank failed where only its log knows why.
    """
    if isinstance(executor, Slurm):
        _submit(stages, executor, work)
        return False
    with _cluster(executor), _quiet(), children_die_with_us():
        for stage in stages:
            running = _opened(stage, executor, work)
            running.run()
            _check(running, stage, work)
    return True


def done(stage: Stage, work: Path) -> list[int]:
    """The ranks of a stage that are finished."""
    folder = logs(stage, work) / "completions"
    return sorted(int(name) for name in os.listdir(folder)) if folder.is_dir() else []


def logs(stage: Stage, work: Path) -> Path:
    """Where datatrove notes which ranks of a stage are done. It silently does not do these again: that is how work goes on."""
    return work / "logs" / stage.name


def _opened(stage: Stage, executor: Local | Ray, work: Path) -> PipelineExecutor:
    place = str(logs(stage, work))
    if isinstance(executor, Local):
        from datatrove.executor import LocalPipelineExecutor

        workers = min(executor.workers or os.cpu_count() or 1, stage.ranks)
        return LocalPipelineExecutor(list(stage.links), tasks=stage.ranks, workers=workers, logging_dir=place)
    from datatrove.executor import RayPipelineExecutor

    workers = executor.workers or -1
    memory = executor.memory_gb
    return RayPipelineExecutor(list(stage.links), tasks=stage.ranks, workers=workers, mem_per_cpu_gb=memory, logging_dir=place)


def _check(running: PipelineExecutor, stage: Stage, work: Path) -> None:
    """Some executors end well when a rank has failed; its note, where it left one, is the error."""
    missing = running.get_incomplete_ranks(skip_completed=True)
    if not missing:
        return
    for rank in missing:
        note = work / "faults" / stage.name / f"{rank:06d}.txt"
        if note.exists():
            raise InputError(note.read_text(encoding="utf-8"))
    raise RuntimeError(f"{stage.name}: parts {missing} failed; {logs(stage, work)} may say why")


def _submit(stages: Sequence[Stage], executor: Slurm, work: Path) -> None:
    from datatrove.executor import SlurmPipelineExecutor

    before: Any = None
    for stage in stages:
        before = SlurmPipelineExecutor(
            list(stage.links),
            tasks=stage.ranks,
            time=executor.time,
            partition=executor.partition,
            mem_per_cpu_gb=executor.memory_gb,
            workers=executor.workers or -1,
            job_name=f"bothways-{stage.name}",
            qos=executor.qos,
            env_command=executor.environment or "",
            depends=before,
            logging_dir=str(logs(stage, work)),
        )
    try:
        before.run()
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such command; submit to Slurm where it is installed") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """No log of datatrove's in this process; `Quiet` sees to the others."""
    from loguru import logger

    logger.disable("datatrove")
    try:
        yield
    finally:
        logger.enable("datatrove")


@contextmanager
def _cluster(executor: Local | Ray) -> Iterator[None]:
    if isinstance(executor, Local):
        yield
        return
    # read when Ray is loaded: nothing is sent to its makers, and no token is kept in the home folder
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    try:
        import ray
    except ImportError:
        raise MissingExtraError("curation on Ray", "ray") from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(address=executor.address, log_to_driver=False, include_dashboard=False if executor.address is None else None)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()
