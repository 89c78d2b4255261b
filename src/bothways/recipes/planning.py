"""What a run will take, before it: memory, time, energy, money; and what a budget buys.

Memory is computed, from the operations of the run's own step. Time is measured, by some real steps of the run's own network;
what they cost is scaled to the whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from bothways.errors import InputError
from bothways.families import BY_NAME
from bothways.families.family import Heads, Spec
from bothways.model.cost import parameters_by_part
from bothways.model.model import Model
from bothways.recipes.assembling import EVALUATED, unfilled
from bothways.recipes.gramming import unknown
from bothways.recipes.measuring import Measured, Network, measure, program
from bothways.recipes.planned_text import PlannedText, assumed, sampled
from bothways.recipes.pretraining import check
from bothways.recipes.runs import Pretraining
from bothways.recipes.sizing import Sized, optimal_parameters, suited
from bothways.training.machine import free_memory, machine, memory_in_use
from bothways.training.memory import Footprint
from bothways.training.power import Meter
from bothways.training.ramp import micro_batches
from bothways.training.schedule import Hours, Tokens
from bothways.training.speed import gemm_rate

# What a step may reach of the rate of products at first guess, to choose how much to measure
_GUESS = 0.35
# What a process holds beyond its activations for having allocated and freed them, as a part of them, at first guess: heaps
# have gaps, and sizes change from step to step (benchmarks/plan.py: from a quarter to a half, less the larger the network)
_SLACK = 0.3
# Of the free memory, what a run should take at most
_SAFE = 0.9


@dataclass(frozen=True)
class Terms:
    """What a plan is asked for.

    Attributes:
        watts: that the machine draws; None asks the machine, which seldom knows.
        price: of an hour of the machine, in whatever money.
        seconds: to measure steps for.
    """

    watts: float | None = None
    price: float | None = None
    seconds: float = 8.0
    device: str = "cpu"


@dataclass(frozen=True)
class Memory:
    """Bytes of a run, while it trains.

    Attributes:
        program: Python, torch and their libraries: measured. None of a GPU's memory, or where the system does not tell.
        text: the tokenised text, which is mapped into memory as it is read.
        weights, gradients, optimizer, activations: as of `Footprint`.
        allocator: what the C library holds between blocks in use; none of a GPU's memory.
        saving: copies of weights and optimizer state while a checkpoint is written, where one is before the end.
        peak: of all together, at the worst moment.
        free: what the machine has left; None where it does not tell.
        tokens: of the largest micro-batch for which it suffices; None where that is not known.
    """

    program: int | None
    text: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    allocator: int
    saving: int
    peak: int
    free: int | None
    tokens: int | None


@dataclass(frozen=True)
class Spent:
    """What a budget comes to.

    Attributes:
        seconds: of steps.
        evaluation: seconds of looking at held-out text, on top.
        epochs: passes over the text; None where no text is given, at most so many where it was not read to its end.
        watts: what the energy is computed from; None where nothing is known of it.
        metered: whether the machine's own counters say so; else it was given.
        kwh, money: None where wattage, or price, is not known.
    """

    tokens: int
    steps: int
    seconds: float
    evaluation: float
    epochs: float | None
    watts: float | None
    metered: bool
    kwh: float | None
    money: float | None


@dataclass(frozen=True)
class Plan:
    """All that is known of a run before it.

    Attributes:
        best_rate: the machine's best rate of matrix products, FLOP/s.
        parameters: by part.
        flops: of the matrix products of training, a token: a forward pass, and two for the backward pass.
        tokens_per_second: what is to be expected, if the machine stays as it was while it was measured.
        share: of the machine's rate of products meanwhile that training reaches.
        micro_batch: tokens of a micro-batch, on average.
        measured: what it all was computed from.
        sizes: other sizes of the same recipe, and `suggested`, the one that suits the budget.
    """

    machine: Mapping[str, Any]
    best_rate: float
    text: PlannedText
    parameters: Mapping[str, int]
    memory: Memory
    flops: float
    tokens_per_second: float
    share: float
    micro_batch: float
    measured: Measured
    spent: Spent
    optimal_parameters: int
    suggested: str | None
    sizes: tuple[Sized, ...]

    @property
    def total(self) -> int:
        return sum(self.parameters.values())


def plan(run: Pretraining, terms: Terms, *, with_text: bool, sizes: Mapping[str, Pretraining] | None = None) -> Plan:
    """Look at the text (if there is any yet), compute the memory, measure some steps, and scale.

    Args:
        sizes: other sizes of the run, to compare with.

    Raises:
        InputError: a contradiction in the run, text that cannot be read, or a network that does not fit this machine.
    """
    check(run)
    best_rate = gemm_rate(terms.device, torch.float32)
    own = program(Network(run, assumed(run))) if terms.device == "cpu" else None  # before a text takes its part
    text = sampled(run) if with_text else assumed(run)
    network, limit = Network(run, text), run.batching.tokens
    free = _free(terms.device)
    one = network.footprint(limit)
    tokens = _to_measure(network, best_rate, terms.seconds, _fitting(free, limit, one, _SLACK))
    meter = Meter(terms.device)
    measured = measure(network, tokens, terms.seconds, terms.device)
    metered = meter.watts() if terms.watts is None else None
    scale = limit / tokens
    micro_batch, step = measured.tokens * scale, _step_seconds(run, measured, scale, run.training.accumulate)
    speed = run.training.accumulate * micro_batch / step
    spent = _spent(run, terms, text, measured, scale, metered)
    flops, parameters = 3 * measured.flops, _parameters(run)
    reached = speed * flops
    costs = {name: _cost(other) for name, other in (sizes or {}).items()}
    suggested, rows = suited(costs, reached * spent.seconds) if costs else (None, ())
    return Plan(
        machine=machine(terms.device),
        best_rate=best_rate,
        text=text,
        parameters=parameters,
        memory=_memory(run, text, one, _slack(network, tokens, measured, own), spent.steps, own, free),
        flops=flops,
        tokens_per_second=speed,
        share=reached / measured.rate,
        micro_batch=micro_batch,
        measured=measured,
        spent=spent,
        optimal_parameters=optimal_parameters(reached * spent.seconds),
        suggested=suggested,
        sizes=rows,
    )


def _free(device: str) -> int | None:
    """What a run may take: this process ends before it begins."""
    free, own = free_memory(torch.device(device)), memory_in_use() if device == "cpu" else 0
    return None if free is None else free + (own or 0)


def _fitting(free: int | None, limit: int, one: Footprint, slack: float) -> int | None:
    """Tokens of a micro-batch that the free memory holds, where `limit` tokens take `one`."""
    return None if free is None else int(limit + (_SAFE * free - one.peak) * limit / ((1 + slack) * one.activations))


def _slack(network: Network, tokens: int, measured: Measured, own: int | None) -> float:
    """What steps on micro-batches of `tokens` tokens held beyond their tensors, as a part of the activations."""
    if own is None:
        return 0.0
    if measured.peak is None:
        return _SLACK
    training = replace(network.run.training, accumulate=1, ramp=None)  # as it was measured
    one = Network(replace(network.run, training=training), network.text).footprint(tokens)
    return max(measured.peak - own - one.peak, 0) / one.activations


def _to_measure(network: Network, best_rate: float, seconds: float, fitting: int | None) -> int:
    """Tokens of the micro-batches to measure: the run's own, unless its steps would take too long, or too much memory.

    Raises:
        InputError: not even one sample fits.
    """
    longest = int(network.text.lengths.max())
    if fitting is not None and fitting < longest:
        raise InputError(
            f"a sample of {longest:,} tokens does not fit the free memory of this machine: "
            "choose a smaller network (--size), or a smaller max_length"
        )
    quick = seconds / 5 * _GUESS * best_rate / (3 * network.flops)
    most = network.run.batching.tokens if fitting is None else min(network.run.batching.tokens, fitting)
    return max(min(most, int(quick)), longest)


def _step_seconds(run: Pretraining, measured: Measured, scale: float, count: int) -> float:
    """Of a step of `count` micro-batches, where processes that prepare inputs do so meanwhile."""
    drawing = 0.0 if run.workers else measured.drawing
    return count * scale * (drawing + measured.gradients) + measured.update


def _course(run: Pretraining, measured: Measured, scale: float) -> tuple[int, float, float]:
    """Steps, tokens and seconds until the budget is spent."""
    training, micro_batch = run.training, measured.tokens * scale
    full = _step_seconds(run, measured, scale, training.accumulate)
    budget = training.budget
    if isinstance(budget, Hours):  # as training does: at the speed of full steps
        budget = Tokens(count=max(round(budget.hours * 3600 / full * training.accumulate * micro_batch), 1))
    per = {"steps": 1.0, "tokens": training.accumulate * micro_batch, "elapsed": full}[budget.type]
    if training.ramp is None:
        steps = math.ceil(round(budget.count / per, 6))
        return steps, steps * training.accumulate * micro_batch, steps * full
    step, tokens, seconds = 0, 0.0, 0.0
    while (done := {"steps": step, "tokens": tokens, "elapsed": seconds}[budget.type]) < budget.count:
        count = micro_batches(training.ramp, training.accumulate, step, done, budget.count)
        step, tokens = step + 1, tokens + count * micro_batch
        seconds += _step_seconds(run, measured, scale, count)
    return step, tokens, seconds


def _spent(run: Pretraining, terms: Terms, text: PlannedText, measured: Measured, scale: float, metered: float | None) -> Spent:
    training, micro_batch = run.training, measured.tokens * scale
    steps, tokens, of_steps = _course(run, measured, scale)
    learned = None if text.tokens is None else text.tokens * (1 - run.held_out)
    batches = EVALUATED if text.tokens is None else min(EVALUATED, math.ceil(text.tokens * run.held_out / micro_batch))
    looks = 1 if training.evaluate_every is None else math.ceil(steps / training.evaluate_every)
    evaluation = looks * batches * scale * measured.gradients / 3
    hours, watts = (of_steps + evaluation) / 3600, metered if terms.watts is None else terms.watts
    return Spent(
        tokens=round(tokens),
        steps=steps,
        seconds=of_steps,
        evaluation=evaluation,
        epochs=None if learned is None else tokens / learned,
        watts=watts,
        metered=terms.watts is None and watts is not None,
        kwh=None if watts is None else watts * hours / 1000,
        money=None if terms.price is None else terms.price * hours,
    )


def _memory(
    run: Pretraining, text: PlannedText, one: Footprint, slack: float, steps: int, own: int | None, free: int | None
) -> Memory:
    limit = run.batching.tokens
    mapped = (text.tokens or 0) * (2 if run.encoder.vocab_size <= 1 << 16 else 4)
    every = run.training.checkpoint_every
    # a copy of both, from which the file's bytes are made, of one at a time
    saving = one.weights + 2 * one.optimizer if every is not None and steps > every else 0
    allocator = round(slack * one.activations)
    beside = (own or 0) + mapped + saving
    slack = _SLACK if own is None else slack  # what nothing tells of is left free
    fitting = _fitting(free, limit, one, slack)
    most = None if fitting is None else fitting - round(beside * limit / ((1 + slack) * one.activations))
    return Memory(
        program=own,
        text=mapped,
        weights=one.weights,
        gradients=one.gradients,
        optimizer=one.optimizer,
        activations=one.activations,
        allocator=allocator,
        saving=saving,
        peak=one.peak + allocator + beside,
        free=free,
        tokens=most if most is None or most > 0 else None,
    )


def _parameters(run: Pretraining) -> dict[str, int]:
    family = BY_NAME[run.family]
    heads = Heads(masked_lm=run.head)
    if run.replaced_tokens is not None and run.ngrams is None:
        heads = Heads(replaced_token=run.replaced_tokens.head)
    with torch.device("meta"):
        parts = parameters_by_part(Model(family, Spec(encoder=run.encoder, heads=heads), None, name=run.family))
        objective = unfilled(run, unknown(run))
    # of what is shared, the model has it already
    beside = sum(one.numel() for one in objective.parameters()) - sum(parts.values())
    if not beside:
        return parts
    of_tokens = "trained beside" if run.replaced_tokens is None else "generator"
    return {**parts, of_tokens if run.ngrams is None else "n-grams, and what predicts them": beside}


def _cost(run: Pretraining) -> tuple[int, float]:
    """Parameters, and training FLOPs a token, of a run whose samples are full."""
    return sum(_parameters(run).values()), 3 * Network(run, assumed(run)).flops
