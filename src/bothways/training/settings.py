"""How to train, and who looks on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field
from rich.console import Console

from bothways.config import config
from bothways.errors import InputError
from bothways.training.averaging import MovingAverage
from bothways.training.distributed import Parallel, Replicate
from bothways.training.optimizer import Optimizer
from bothways.training.precision import Precision
from bothways.training.ramp import Ramp
from bothways.training.schedule import Budget, Schedule

Every = Annotated[int, Field(gt=0)]


@config
class TrainingConfig:
    """How to train.

    Attributes:
        clip: the largest global gradient norm; None leaves gradients as they are.
        layer_decay: what the learning rate is multiplied by for each layer further from the top (`layer_rates.with_layer_decay`),
            whatever the optimizer and the groups; 0.95 or so keeps what lower layers have learned. None: one rate for all.
        accumulate: micro-batches a step.
        ramp: fewer micro-batches at first; None: all steps have `accumulate`.
        precision: of matrix products. "bf16" keeps weights, gradients and the optimizer's state in float32; on a CPU without
            instructions for it, it is refused, and "bf16_emulated" is not.
        recompute: each layer's inside is computed again in the backward pass instead of kept: less memory, a third more work,
            the same numbers.
        compile: the encoder's layers are compiled in place, each kind once. For inputs of one shape (`Loader(fixed=True)`): every
            other shape would be compiled, too. Free to change when a run goes on.
        moving_average: a mean of the weights that moves along with them is evaluated, and left in the module at the end.
        seed: of dropout and of all else that is drawn in the module.
        log_every, evaluate_every, checkpoint_every: in steps. None: at the end only.
        keep: the newest checkpoints to keep.
        parallel: how the weights lie in several processes; free to change when a run goes on, as their number is.
    """

    optimizer: Optimizer
    schedule: Schedule
    budget: Budget
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    accumulate: Every = 1
    ramp: Ramp | None = None
    precision: Precision = "fp32"
    recompute: bool = False
    compile: bool = False
    moving_average: MovingAverage | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    log_every: Every = 10
    evaluate_every: Every | None = None
    checkpoint_every: Every | None = 1000
    keep: Every = 2
    parallel: Parallel = Replicate()

    def __post_init__(self) -> None:
        if self.ramp is not None and self.ramp.first > self.accumulate:
            most = f"accumulate, the full batch, is {self.accumulate}"
            raise InputError(f"TrainingConfig.ramp.first: {self.ramp.first} micro-batches, but {most}; raise accumulate")


@dataclass(frozen=True)
class Watch:
    """What only looks on: none of it changes the weights.

    Attributes:
        evaluate: figures on held-out inputs, called in evaluation mode without gradients.
        samples: example predictions, one dict of columns a row; called as often as `evaluate`.
        rate: the machine's matrix-multiply rate in FLOP/s, from `speed.gemm_rate`; None shows no share of it.
        console: where progress goes; standard error unless given.
        clock: seconds.
        first: whether to look before the first step, too.
    """

    evaluate: Callable[[], Mapping[str, float]] | None = None
    samples: Callable[[], Sequence[Mapping[str, str]]] | None = None
    rate: float | None = None
    console: Console = field(default_factory=lambda: Console(stderr=True))
    clock: Callable[[], float] = field(default=time.perf_counter)
    first: bool = False
