"""A few real steps of a run's own network on this machine: how long they take, beside what the machine can do meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import harmonic_mean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bothways.data.loader import Loader
from bothways.data.vocabulary import Vocabulary
from bothways.encoder.initialisation import initialise
from bothways.recipes.assembling import unfilled
from bothways.recipes.continuing import Objectives
from bothways.recipes.gramming import unknown
from bothways.recipes.planned_text import Invented, PlannedText
from bothways.recipes.runs import Pretraining
from bothways.training import step as steps
from bothways.training.distributed import Spread
from bothways.training.machine import memory_in_use, peak_memory
from bothways.training.memory import Footprint, footprint
from bothways.training.optimizer import default_groups, parameter_table
from bothways.training.speed import Sampler, settle
from bothways.training.update import Step, Updates

# Special tokens come first in every tokenizer that is trained here
_SPECIAL = 5
_LEAST_STEPS = 5
# Inputs are dealt evenly to at least so many batches, so that these are nearly as full as those of a long text
_BATCHES = 64
# Tokens of the step that calls all there is once, and takes next to no memory
_LITTLE = 32


@dataclass(frozen=True)
class Measured:
    """What some steps took.

    Attributes:
        tokens: of a micro-batch that was measured, on average.
        drawing, gradients, update: mean seconds, of drawing and preparing a micro-batch, of its passes, of moving the weights.
        low, high: tokens per second of the steps, the slowest and the fastest tenth left out.
        rates: samples of the machine's rate of products, one before each step, FLOP/s.
        flops: of the matrix products of a forward pass, a token.
        peak: the most bytes this process held meanwhile; None where it had held more before, or the system does not say.
    """

    steps: int
    tokens: float
    drawing: float
    gradients: float
    update: float
    low: float
    high: float
    rates: tuple[float, ...]
    flops: float
    peak: int | None

    @property
    def rate(self) -> float:
        """The rate of products while it was measured: operations over time, FLOP/s."""
        return harmonic_mean(self.rates)


@dataclass(frozen=True, eq=False)
class Network:
    """A run's network and inputs of its kind."""

    run: Pretraining
    text: PlannedText

    @property
    def vocabulary(self) -> Vocabulary:
        return unknown(self.run, _SPECIAL)

    def build(self) -> Objectives:
        # a second task adds a pooler and two classes, and needs texts that are pairs
        return unfilled(replace(self.run, pairs=None, masking=self.run.masking.measured(None)), self.vocabulary)

    def loader(self, tokens: int, objective: Objectives) -> Loader[Any]:
        """Micro-batches of at most `tokens` tokens, of the text's lengths."""
        lengths = np.minimum(self.text.lengths, tokens)
        lengths = np.tile(lengths, -(-_BATCHES * tokens // int(lengths.sum())))
        data = Invented(lengths, range(_SPECIAL, self.run.encoder.vocab_size))
        batching, training = replace(self.run.batching, tokens=tokens), self.run.training
        return Loader(data, batching, objective.prepare, training.seed, fixed=training.compile)

    def inputs(self, tokens: int) -> Any:
        """The fullest of some micro-batches."""
        stream = self.loader(tokens, self._hollow).open()
        drawn = (next(stream) for _ in range(8))
        return max((one for one in drawn if one is not None), key=lambda one: one.tokens)

    @property
    def flops(self) -> float:
        """Of the matrix products of a forward pass, a token, in batches of some eight samples."""
        inputs = self.inputs(8 * int(self.text.lengths.max()))
        return self._hollow.flops(inputs) / inputs.tokens

    def footprint(self, tokens: int) -> Footprint:
        """What a step on micro-batches of so many tokens takes, by its operations alone."""
        inputs = self.inputs(tokens)
        self._hollow.flops(inputs)  # relative positions look up which rows they need, once: not possible without contents
        return footprint(self.build, [inputs] * min(self.run.training.accumulate, 2), self.run.training)

    @cached_property
    def _hollow(self) -> Objectives:
        """The network without memory for its weights."""
        with torch.device("meta"):
            return self.build()


def _ready(network: Network, device: str, step: Step[Any]) -> tuple[Objectives, Updates[Any]]:
    """The network with its optimizer; a step has one micro-batch."""
    objective = network.build()
    # as drawn by torch alone, scores would be so far apart that products of vanishing numbers slow a processor down
    initialise(objective, network.run.encoder.initialisation, network.run.encoder.num_layers, network.run.training.seed)
    objective.to(device).train()
    training = replace(network.run.training, accumulate=1, ramp=None)
    table = parameter_table(objective, default_groups(training.optimizer, objective))
    return objective, Updates(objective, training, table, step, torch.device(device))


class _Clock:
    """The step of training, and how long its passes took the last time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.spent = 0.0

    def step(self, module: Any, inputs: Sequence[Any], seed: Callable[[int], None], spread: Spread[Any]) -> Any:
        begin = time.perf_counter()
        out = steps.step(module, inputs, seed, spread)
        settle(self._device)
        self.spent = time.perf_counter() - begin
        return out


def program(network: Network) -> int | None:
    """Bytes of main memory that training takes without the run's tensors: Python, torch, the libraries' own.

    Measured by a step that calls all there is, on next to no text; to be asked before anything else has used memory.
    """
    network = Network(replace(network.run, training=replace(network.run.training, compile=False)), network.text)
    objective, updates = _ready(network, "cpu", steps.step)
    updates(updates.draw(network.loader(_LITTLE, objective).open(), 1), 0, lr=0.0)
    state = (tensor for kept in updates.optimizer.state.values() for tensor in kept.values() if isinstance(tensor, Tensor))
    gradients = (parameter.grad for parameter in objective.parameters() if parameter.grad is not None)
    tensors = sum(one.nbytes for one in (*objective.parameters(), *objective.buffers(), *gradients, *state))
    in_use = memory_in_use()
    return None if in_use is None else in_use - tensors


def measure(network: Network, tokens: int, seconds: float, device: str) -> Measured:
    """Real steps of micro-batches of `tokens` tokens, for about `seconds`; five at least. The first warms up."""
    clock, before = _Clock(torch.device(device)), peak_memory(torch.device(device))
    objective, updates = _ready(network, device, clock.step)
    stream = network.loader(tokens, objective).open()
    updates(updates.draw(stream, 1), 0, lr=0.0)
    sampler = Sampler(device)
    rows: list[tuple[float, ...]] = []
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while len(rows) < _LEAST_STEPS or time.perf_counter() < end:
        # one between two steps, as a run takes them: those of a row would find caches and threads warmer
        rates.append(sampler.sample())
        begin = time.perf_counter()
        (inputs,) = updates.draw(stream, 1)
        assert inputs is not None, "one process draws all inputs"
        drawn = time.perf_counter()
        updates([inputs], 1, lr=0.0)
        done = time.perf_counter()
        rows.append((inputs.tokens, drawn - begin, clock.spent, done - drawn - clock.spent, objective.flops(inputs)))
    peak = peak_memory(torch.device(device))
    counts, drawing, gradients, update, flops = (np.array(column) for column in zip(*rows, strict=True))
    speeds = counts / (drawing + gradients + update)
    low, high = np.quantile(speeds, (0.1, 0.9)).tolist()
    return Measured(
        steps=len(rows),
        tokens=float(counts.mean()),
        drawing=float(drawing.mean()),
        gradients=float(gradients.mean()),
        update=float(update.mean()),
        low=low,
        high=high,
        rates=tuple(rates),
        flops=float(flops.sum() / counts.sum()),
        peak=None if peak == before else peak,
    )
