"""The training loop: from an opened stream of inputs to a trained module, resumable to the bit.

Two seams: `step`, which leaves one step's gradients, and `after_step`, called once the weights have
moved. Everything else is settings.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

import torch
from rich.console import Console
from torch import nn

from bothways.data.loader import Share
from bothways.errors import InputError
from bothways.training import checkpoint, log, record
from bothways.training import step as steps
from bothways.training.checkpoint import Position
from bothways.training.compiling import compile_layers, uncompiled
from bothways.training.display import Display
from bothways.training.distributed import Shard, spread
from bothways.training.interrupt import Asked, Interrupted, asked_to_stop
from bothways.training.layer_rates import with_layer_decay
from bothways.training.machine import machine, peak_memory
from bothways.training.optimizer import Group, default_groups, parameter_table
from bothways.training.ramp import micro_batches
from bothways.training.record import Record
from bothways.training.saving import Saver
from bothways.training.schedule import Amount, Elapsed, Hours, Steps, Tokens, check, factor, spent
from bothways.training.settings import TrainingConfig, Watch
from bothways.training.speed import Sampler, peak_rate
from bothways.training.team import Team, team
from bothways.training.trainable import I, OpenStream, State, Stream, Trainable, filler_of
from bothways.training.update import Step, Updates, calibrated


@dataclass(frozen=True)
class Result:
    """A finished run, as its log has it: the last train line's loss, the last evaluation line's figures (None if not finite)."""

    folder: Path
    checkpoint: Path
    step: int
    tokens: int
    seconds: float
    loss: float
    evaluation: dict[str, float | None]


@dataclass(frozen=True)
class Beginning:
    """How a run goes on from another, whose weights the module has been given already.

    Attributes:
        steps: the other's steps: what is drawn in the module (dropout) goes on from there.
        stream: where its inputs begin; None at the stream's beginning.
        moments: a checkpoint whose optimizer state is gone on with; None begins with a fresh one.
    """

    steps: int = 0
    stream: State | None = None
    moments: Path | None = None


class DivergedError(InputError):
    """The loss or the gradient norm is not finite."""


def train(
    module: Trainable[I],
    open_stream: OpenStream[I],
    settings: TrainingConfig,
    folder: Path,
    *,
    device: torch.device | str,
    run: str,
    free: Collection[str] = (),
    watch: Watch | None = None,
    groups: Sequence[Group] | None = None,
    beginning: Beginning = Beginning(),
    step: Step[I] = steps.step,
    after_step: Callable[[int], None] | None = None,
) -> Result:
    """Train `module` in place until the budget is spent, or go on where `folder` stands.

    Where `torchrun` has started several processes, each calls this with the same arguments and a module of the same
    weights; the first one evaluates and writes. With `Shard`, only its module is trained when this returns.

    Args:
        run: the whole run's config as JSON; kept in `run.json`, and compared before going on.
        free: dotted paths in `run` that may differ when going on (workers, devices).
        groups: which parameters get which learning rate and decay; `default_groups` unless given.
        beginning: what a fresh run takes over from another.
        after_step: called with the number of steps done, after each.

    Raises:
        InputError: the folder holds another run, or cannot be written; the schedule exceeds the
            budget; accumulation of a whole-batch loss, or several processes for it; a stream that ends; a loss that is
            not finite; no checkpoint that is whole.
        Interrupted: after Ctrl-C or SIGTERM, with everything saved.
    """
    us = team()
    _refuse(module, settings, us, after_step)
    assert isinstance(module, nn.Module), "a Trainable is an nn.Module"
    watch = watch or Watch()
    if not us.first:
        watch = replace(watch, console=Console(quiet=True))
    device = torch.device(device)
    module.to(device).train()
    table = parameter_table(module, groups or default_groups(settings.optimizer, module))
    table = with_layer_decay(table, module, settings.layer_decay)
    tree = json.loads(run)
    known = record.read(folder)
    if known:
        record.same_run(known.run, tree, free, folder / record.NAME)
        record.same_weights(known.weights, module.weights, folder / record.NAME)
    us.wait()  # all have looked before the first writes
    share = _shared(open_stream, us)
    trained, spreading = spread(settings.parallel, module, us, lambda: _spare(open_stream).to(device), device)
    updates = Updates(trained, settings, table, step, device, spreading)
    with Display(watch.console) as display, asked_to_stop(display.say, us) as stop:
        if known is None:
            budget = settings.budget
            if isinstance(budget, Hours):
                budget = calibrated(budget, settings.accumulate, updates, share, watch, stop)
            if budget is None:
                raise Interrupted(folder, 0, None, stop.preempted)
            check(settings.schedule, budget.count)
            known = Record(tree, record.fingerprint(tree, free), budget, table, dict(module.weights))
            if us.first:
                record.write(folder, known)
            updates.reset()
        updates.before = beginning.steps
        at = _resumed(folder, updates, tree, free, beginning, display.say)
        assert known.budget is not None, "a run of stages has no steps of its own"
        return _Loop(module, updates, share(at.stream), settings, folder, known.budget, watch, display, at, after_step).go(stop)


def finished(folder: Path, say: Callable[[str], None]) -> bool:
    """Whether a run has spent its budget in this folder; a last step whose checkpoint is damaged has to be done again."""
    known = record.read(folder)
    if known is None or known.budget is None:
        return False
    us = team()
    last = checkpoint.newest_whole(folder, say) if us.first else None
    at = checkpoint.position(last) if last else None
    spends = at is not None and spent(known.budget, at.step, at.tokens, at.seconds) >= known.budget.count
    return us.told(float(spends)) == 1.0


@dataclass
class _Loop(Generic[I]):
    """One run, from where its folder stands to the end of its budget."""

    given: nn.Module
    updates: Updates[I]
    stream: Stream[I]
    settings: TrainingConfig
    folder: Path
    budget: Steps | Tokens | Elapsed
    watch: Watch
    display: Display
    at: Position
    after_step: Callable[[int], None] | None

    def __post_init__(self) -> None:
        self.module = self.updates.module
        self.window = log.Window(self.module.weights)
        self.team = self.updates.spread.team
        self.log = log.Log(self.folder, self.at.step) if self.team.first else None
        self.saver = Saver(self.folder, self.settings.keep)
        self.rate = self.watch.rate and self.watch.rate * self.team.size
        self.sampler = Sampler(self.updates.device) if self.watch.rate and self.team.first else None
        self.introduced = False  # whether the log says which machine this process is on

    @property
    def done(self) -> Amount:
        return spent(self.budget, self.at.step, self.at.tokens, self.at.seconds)

    @property
    def finished(self) -> bool:
        return self.done >= self.budget.count

    def go(self, stop: Asked) -> Result:
        try:
            if self.at.step and self.team.first:
                begun = "nothing is left to do after" if self.finished else "going on from"
                self.display.say(f"{begun} step {self.at.step:,}, {self.at.tokens:,} tokens")
            self.display.begin(self.budget.count, self.done)
            if self.watch.first and self.at.step == 0:
                self._look()
            while not self.finished:
                self._step()
                self._after()
                self.saver.check()
                if stop() and not self.finished:
                    self._save()
                    self.saver.wait()
                    self.team.wait()
                    place = checkpoint.place_of(self.folder, self.at.step)
                    raise Interrupted(self.folder, self.at.step, place, stop.preempted)
            self.saver.wait()
            if self.updates.mean:
                self.updates.mean.settle()
            self.updates.spread.gather()
            self.team.wait()
        finally:
            self.saver.close()
            if self.log:
                self.log.close()
            self.stream.close()
            compile_layers(self.module, False, self.updates.device)  # others call it with any shapes
        return self._result()

    def _step(self) -> None:
        begin = self.watch.clock()
        settings, done, total = self.settings, self.done, self.budget.count
        inputs = self.updates.draw(self.stream, micro_batches(settings.ramp, settings.accumulate, self.at.step, done, total))
        lr = settings.optimizer.lr * factor(settings.schedule, done, total)
        sums, counts, norm = self.updates(inputs, self.at.step, lr)
        own = [one for one in inputs if one is not None]
        seconds = self.watch.clock() - begin if self.team.first else 0.0
        flops = float(sum(self.module.flops(one) for one in own)) if self.rate else 0.0
        processed = [sum(one.tokens for one in own), sum(map(filler_of, own))]
        counted, filler, seconds, flops = self.team.total([*processed, seconds, flops])
        tokens = round(counted)
        loss = steps.loss(self.module.weights, steps.means(sums, counts))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._diverged(loss, norm)
        self.window.add(sums, counts, norm, tokens, seconds, flops, round(filler))
        self.window.sampled(self.sampler.due() if self.sampler else None)
        self.at = replace(
            self.at,
            step=self.at.step + 1,
            tokens=self.at.tokens + tokens,
            seconds=self.at.seconds + seconds,
            stream=self.stream.state(),
        )
        self.lr = lr  # of the next train line
        latest = self.window.fields(lr, self.rate)
        self.display.update(self.done, self.at.step, self.at.tokens, loss, latest["tokens_per_second"], latest["gemm_share"])

    def _after(self) -> None:
        """Whatever is due once a step is done. The checkpoint comes last, so that it never lacks a line of the log."""
        if self.after_step:
            self.after_step(self.at.step)
        if self._due(self.settings.log_every):
            self._flush()
        if self._due(self.settings.evaluate_every):
            self._look()
        if self._due(self.settings.checkpoint_every):
            self._save()

    def _due(self, every: int | None) -> bool:
        return self.finished or (every is not None and self.at.step % every == 0)

    def _flush(self) -> None:
        if self.window.steps:
            self._write("train", **self.window.fields(self.lr, self.rate), memory=peak_memory(self.updates.device))
            self.window.clear()
            self._introduce()

    def _introduce(self) -> None:
        if not self.introduced:
            peak = peak_rate(self.updates.device)
            self._write("machine", **machine(self.updates.device), rate=self.watch.rate, peak=peak)
            self.introduced = True

    def _look(self) -> None:
        with self.updates.shown():
            self.updates.spread.gather()
            if self.team.first:
                self.given.eval()
                with torch.no_grad(), uncompiled(self.given):
                    if self.watch.evaluate:
                        self._write("evaluation", metrics=dict(self.watch.evaluate()))
                    if self.watch.samples:
                        self._write("samples", rows=[dict(row) for row in self.watch.samples()])
                self.given.train()
            self.team.wait()

    def _save(self) -> None:
        self._flush()
        if self.log:
            self.log.sync()
        saved = checkpoint.snapshot(self.module, self.updates.optimizer, self.at, self.updates.mean and self.updates.mean.tensors)
        if saved:
            self.saver.save(saved)

    def _write(self, kind: str, **fields: Any) -> None:
        if self.log:
            self.log.write(kind, self.at.step, self.at.tokens, self.at.seconds, **fields)

    def _diverged(self, loss: float, norm: float) -> None:
        self.saver.wait()
        last = checkpoint.latest(self.folder)
        raise DivergedError(
            f"step {self.at.step + 1}: the loss is {loss} and the gradient norm {norm}; the last checkpoint is {last or 'none'}; "
            "the same run would fail again, so lower the learning rate or `clip` and train in a new folder"
        )

    def _result(self) -> Result:
        lines = {line["kind"]: line for line in log.read(self.folder)}  # the last of each kind
        last = checkpoint.latest(self.folder)
        assert last is not None, "a finished run has saved its last step"
        evaluation = lines["evaluation"]["metrics"] if "evaluation" in lines else {}
        return Result(self.folder, last, self.at.step, self.at.tokens, self.at.seconds, lines["train"]["loss"], evaluation)


def _refuse(module: Trainable[I], settings: TrainingConfig, us: Team, after_step: Callable[[int], None] | None) -> None:
    """What cannot be done in the way it is asked for."""
    if module.whole_batch and settings.accumulate > 1:
        raise InputError(
            f"accumulate is {settings.accumulate}, but this loss couples all samples of a step; set it to 1 and enlarge the batch"
        )
    if module.whole_batch and us.size > 1:
        raise InputError(
            f"{type(module).__name__} couples all samples of a step, which {us.size} processes would divide; train it in one"
        )
    if settings.compile and us.size > 1 and isinstance(settings.parallel, Shard):
        raise InputError("training.compile: layers that Shard cuts up are not compiled; use Replicate, or set it to false")
    if after_step and us.size > 1 and isinstance(settings.parallel, Shard):
        raise InputError("training.parallel: `after_step` changes whole weights, which Shard cuts up; use Replicate")


def _shared(open_stream: OpenStream[I], us: Team) -> OpenStream[I]:
    """Opens this process's share of the stream."""

    def opened(state: State | None, share: Share = us.share, /) -> Stream[I]:
        return open_stream(state, share)

    return open_stream if us.size == 1 else opened


def _spare(open_stream: OpenStream[I]) -> I:
    """Any input at all."""
    with contextlib.closing(open_stream(None)) as stream:
        one = next(stream)
    assert one is not None, "a stream that is not shared has all inputs"
    return one


def _resumed(
    folder: Path,
    updates: Updates[I],
    run: dict[str, Any],
    free: Collection[str],
    beginning: Beginning,
    say: Callable[[str], None],
) -> Position:
    """Where the folder stands, with its last whole checkpoint loaded."""
    us = updates.spread.team
    found = checkpoint.newest_whole(folder, say) if us.first else None
    step = round(us.told(-1 if found is None else int(found.name.removeprefix("step-"))))
    saved = None if step < 0 else checkpoint.place_of(folder, step)
    if saved is None:
        if beginning.moments:
            checkpoint.load_moments(beginning.moments, updates.module, updates.optimizer)
        return Position(step=0, tokens=0, seconds=0.0, stream=beginning.stream, run=run)
    at = checkpoint.position(saved)
    record.same_run(at.run, run, free, saved)
    checkpoint.load(saved, updates.module, updates.optimizer)
    if updates.mean:
        checkpoint.load_mean(saved, updates.mean.tensors)
    return at
