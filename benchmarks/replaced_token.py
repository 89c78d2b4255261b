"""A step of replaced token detection beside a step of masked language modelling, on the same trunk; and what its head saves.

6 layers of 256 (vocabulary 30k, 25 % masked, at most 128 tokens) on random tokens, in our own step, in turns; the generator is a
quarter as wide and shares the embedding. Peak memory is that of a step's operations, carried out without contents
(`training.memory`): with the vocabulary meeting the masked rows alone, and with logits of all tokens.

    python benchmarks/replaced_token.py [--family modernbert] [--tokens 4096] [--rounds 15] [--threads 2]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from harness import Timing, interleaved, ratio, record
from step_profile import LENGTH, VOCABULARY, Inputs
from torch import nn

from bothways.data.masking import Vocabulary
from bothways.data.source import TextFiles
from bothways.encoder.initialisation import initialise
from bothways.families.bert import bert, masked_lm_head
from bothways.families.modernbert import modernbert
from bothways.objectives.replaced_token import ReplacedInputs, ReplacedTokenDetection
from bothways.recipes.assembling import unfilled
from bothways.recipes.replacing import modernbert_rtd
from bothways.recipes.runs import Pretraining
from bothways.training.memory import footprint
from bothways.training.optimizer import default_groups, parameter_table
from bothways.training.schedule import Steps
from bothways.training.step import step
from bothways.training.update import Updates

MASKS = Vocabulary(size=VOCABULARY, mask_id=4, special_ids=frozenset(range(5)))


class Dense(nn.Module):
    """The same objective with logits of all tokens, of which the loss ignores most and all are drawn from."""

    whole_batch = False

    def __init__(self, objective: ReplacedTokenDetection) -> None:
        super().__init__()
        self.objective = objective
        self.weights = objective.weights
        self.counts, self.flops = objective.counts, objective.flops

    def forward(self, inputs: ReplacedInputs) -> dict[str, torch.Tensor]:
        one, masked = self.objective, inputs.masked
        logits = one.generator_head(one.generator(masked.batch).hidden, one.generator.embedding.tokens.weight)
        labels = torch.full_like(masked.batch.ids, -100).index_copy(0, masked.rows, masked.labels)
        loss = F.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum")
        drawn = torch.multinomial(logits.detach().float().softmax(dim=1), 1)[:, 0][masked.rows]
        sums = one.discriminate(inputs, drawn)
        count = torch.tensor(len(masked.labels))
        return {**sums, "generator": loss, "generator_accuracy": count, "masked": count, "mask_token": count}


def runs(family: str) -> dict[str, Pretraining]:
    """Both objectives on one trunk, with the same masks."""
    run = modernbert_rtd(TextFiles(paths=("none",)), Steps(count=1), "mini")
    trunk = modernbert(VOCABULARY, 256, 6, 4, 384, max_length=LENGTH)
    head = run.head
    if family == "bert":
        trunk = bert(VOCABULARY, 256, 6, 4, 1024, max_length=LENGTH)
        head = masked_lm_head(trunk)
    detecting = replace(run, encoder=trunk, head=head)
    return {"masked_lm": replace(detecting, replaced_tokens=None), "replaced_token": detecting}


def contender(run: Pretraining, tokens: int, spent: list[float]) -> Callable[[], object]:
    """A step; the seconds that processors work on it, which other work on the machine changes little, go to `spent`."""
    objective = unfilled(run, MASKS).train()
    initialise(objective, run.encoder.initialisation, run.encoder.num_layers, 0)
    table = parameter_table(objective, default_groups(run.training.optimizer, objective))
    updates: Updates[Any] = Updates(objective, run.training, table, step, torch.device("cpu"))
    stream: Any = Inputs(objective, tokens)

    def one() -> None:
        begin = time.process_time()
        updates([next(stream)], 0, 1e-4)
        spent.append(time.process_time() - begin)

    return one


def memory(run: Pretraining, tokens: int) -> dict[str, float]:
    """MiB at the peak of a step: as it is, and with the dense head."""
    with torch.device("meta"):
        hollow = unfilled(run, MASKS)
    inputs = next(Inputs(hollow, tokens))
    settings = replace(run.training, accumulate=1, ramp=None)
    made = {"masked rows": lambda: unfilled(run, MASKS), "all tokens": lambda: Dense(unfilled(run, MASKS))}  # type: ignore[arg-type]
    return {name: round(footprint(make, [inputs], settings).peak / 2**20, 1) for name, make in made.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=["bert", "modernbert"], default="modernbert")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    both = runs(arguments.family)
    peak = memory(both["replaced_token"], arguments.tokens)
    load = os.getloadavg()[0]
    spent: dict[str, list[float]] = {name: [] for name in both}
    contenders = {name: contender(run, arguments.tokens, spent[name]) for name, run in both.items()}
    timings = interleaved(contenders, arguments.rounds, warmup=2)
    worked = {name: Timing(tuple(seconds[2:])) for name, seconds in spent.items()}
    result = {
        "family": arguments.family,
        "tokens_a_step": arguments.tokens,
        "load_before_and_after": [round(load, 2), round(os.getloadavg()[0], 2)],
        "median_milliseconds": {name: round(1000 * timing.median, 1) for name, timing in timings.items()},
        "best_milliseconds": {name: round(1000 * min(timing.seconds), 1) for name, timing in timings.items()},
        "times_the_masked_lm_step": round(ratio(timings["replaced_token"], timings["masked_lm"]), 3),
        "median_processor_milliseconds": {name: round(1000 * timing.median, 1) for name, timing in worked.items()},
        "times_the_masked_lm_step_in_processor_time": round(ratio(worked["replaced_token"], worked["masked_lm"]), 3),
        "peak_mebibytes": peak,
        "peak_of_all_tokens_over_masked_rows": round(peak["all tokens"] / peak["masked rows"], 2),
    }
    for key, value in result.items():
        print(f"{key}: {value}")
    print(record(f"replaced_token_{arguments.family}", result))


if __name__ == "__main__":
    main()
