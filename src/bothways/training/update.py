"""One update of the weights; and, from a few of them, how many tokens an hour holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeAlias

import numpy as np
import torch
from torch import nn

from bothways.errors import InputError
from bothways.training.averaging import Mean
from bothways.training.compiling import compile_layers
from bothways.training.distributed import Spread, whole
from bothways.training.optimizer import Row, build, set_lr
from bothways.training.precision import in_precision, recompute
from bothways.training.schedule import Hours, Tokens
from bothways.training.settings import TrainingConfig, Watch
from bothways.training.step import ALONE
from bothways.training.trainable import I, OpenStream, Scalars, Stream, Trainable

Step: TypeAlias = Callable[[Trainable[I], Sequence[I | None], Callable[[int], None], Spread[I]], tuple[Scalars, Scalars]]


class Updates(Generic[I]):
    """The module and its optimizer: one call, one update.

    `module` is a `Trainable[I]` and an `nn.Module`, which Python has no type for.

    Attributes:
        before: the steps of runs that this one goes on from: what is drawn is drawn anew in each step of all.
    """

    def __init__(
        self,
        module: Any,
        settings: TrainingConfig,
        table: Sequence[Row],
        step: Step[I],
        device: torch.device,
        spread: Spread[I] = ALONE,
    ) -> None:
        self.module, self.device, self.spread = module, device, spread
        self._settings, self._table, self._step = settings, table, step
        self.before = 0
        recompute(module, settings.recompute)
        compile_layers(module, settings.compile, device)
        self._computed: Trainable[I] = in_precision(module, settings.precision, device)
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        clips, named = {row.name: row.clip for row in table}, dict(module.named_parameters())
        alike = {clip: [named[name] for name in clips if clips[name] == clip] for clip in dict.fromkeys(clips.values())}
        self._clipped_together = [some for one in alike.values() if (some := [p for p in one if p.requires_grad])]
        self.reset()

    def reset(self) -> None:
        """A fresh optimizer, and a mean that begins with the weights as they are."""
        self.optimizer = build(self._settings.optimizer, self.module, self._table)
        moving = self._settings.moving_average
        self.mean = Mean(moving, self.module) if moving else None

    def shown(self) -> contextlib.AbstractContextManager[None]:
        """The module with the weights to be looked at: their mean, if there is one."""
        return self.mean.shown() if self.mean else contextlib.nullcontext()

    def draw(self, stream: Stream[I], count: int) -> list[I | None]:
        """The inputs of one step of so many micro-batches, on the device; None stands for those of other processes."""
        try:
            drawn = [next(stream) for _ in range(count)]
        except StopIteration:
            raise InputError("the inputs ended before the budget was spent; give more text, or a smaller budget") from None
        return [None if one is None else one.to(self.device) for one in drawn]

    def __call__(self, inputs: Sequence[I | None], number: int, lr: float) -> tuple[dict[str, float], dict[str, float], float]:
        """The update of step `number`, counted from 0: its sums, its counts, its gradient norm.

        All that is on a device comes to the host in one transfer, after the update has been queued.
        """
        sums, counts, norm = self.queue(inputs, number, lr)
        *figures, length = _on_host([*sums.values(), *(counts[name] for name in sums), norm])
        half = len(sums)
        totals = self.spread.team.total(figures[:half])
        return dict(zip(sums, totals, strict=True)), dict(zip(sums, figures[half:], strict=True)), length

    def queue(self, inputs: Sequence[I | None], number: int, lr: float) -> tuple[Scalars, Scalars, torch.Tensor]:
        """The same, of which nothing has come to the host."""
        set_lr(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        draws = partial(_seed, self.device, self._settings.seed, self.before + number)
        sums, counts = self._step(self._computed, inputs, draws, self.spread)
        self.spread.end(self._parameters)
        norm = self._clipped()
        self.optimizer.step()
        if self.mean:
            self.mean.update(number)
        return sums, counts, norm

    def _clipped(self) -> torch.Tensor:
        """Clip the gradients, and tell the norm that all of them had together."""
        norms = [whole(nn.utils.get_total_norm([p.grad for p in some if p.grad is not None])) for some in self._clipped_together]
        if self._settings.clip is not None:
            for some, norm in zip(self._clipped_together, norms, strict=True):
                nn.utils.clip_grads_with_norm_(some, self._settings.clip, norm)
        return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def calibrated(
    budget: Hours, full: int, updates: Updates[I], open_stream: OpenStream[I], watch: Watch, stop: Callable[[], bool]
) -> Tokens | None:
    """The tokens that fit in the hours, from a few real steps whose learning rate of 0 leaves the weights alone.

    The first step warms up and is not timed; then at least 4 steps, and 1 % of the time but no more
    than 30 seconds. All are of `full` micro-batches. None if asked to stop.
    """
    allowed, team = budget.hours * 3600, updates.spread.team
    with contextlib.closing(open_stream(None)) as stream:
        updates(updates.draw(stream, full), 0, lr=0.0)
        begin, tokens, number = watch.clock(), 0, 0
        while not stop():
            inputs = updates.draw(stream, full)
            updates(inputs, 0, lr=0.0)
            tokens, number = tokens + sum(one.tokens for one in inputs if one is not None), number + 1
            seconds = team.told(watch.clock() - begin)
            if number >= 4 and seconds >= min(0.01 * allowed, 30):
                return Tokens(count=max(round(team.total([tokens])[0] / seconds * allowed), 1))
    return None


def _on_host(scalars: Sequence[torch.Tensor]) -> list[float]:
    away = [scalar.double() for scalar in scalars if scalar.device.type != "cpu"]
    moved = iter(torch.stack(away).tolist() if away else ())
    return [float(scalar) if scalar.device.type == "cpu" else next(moved) for scalar in scalars]


def _seed(device: torch.device, seed: int, step: int, micro: int) -> None:
    """Seed torch by what is being done, so that no random state has to be saved.

    Only the generators in use: `torch.manual_seed` queues a call for every absent accelerator each
    time, which is slow and never freed.
    """
    state = int(np.random.SeedSequence((seed, step, micro)).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(state)
    if device.type == "cuda":
        torch.cuda.manual_seed(state)
