"""Where the time of one training step goes: the operators of torch's profiler, put into groups.

A BERT or ModernBERT of 4 layers of 256 (vocabulary 30k, 15 % masked, at most 128 tokens) on random tokens, in our loop's own
step. What is neither a matrix product nor attention is what could be saved.

    python benchmarks/step_profile.py [--family bert] [--tokens 4096] [--optimizer adamw] [--steps 5] [--operators 12]
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from harness import record
from torch.profiler import ProfilerActivity, profile, record_function

from bothways.data.masking import BERT
from bothways.data.sample import Sample
from bothways.data.vocabulary import Vocabulary
from bothways.encoder.encoder import Encoder
from bothways.encoder.initialisation import initialise
from bothways.families.bert import bert, masked_lm_head
from bothways.families.modernbert import modernbert
from bothways.layers.heads import MaskedLm
from bothways.objectives.masked_lm import MaskedLanguageModeling
from bothways.objectives.objective import Objective
from bothways.ragged import Capacity
from bothways.training.optimizer import AdamW, BertAdam, Lamb, Muon, StableAdamW, default_groups, parameter_table
from bothways.training.schedule import Linear, Steps
from bothways.training.settings import TrainingConfig
from bothways.training.step import step
from bothways.training.update import Updates

VOCABULARY, LENGTH = 30_000, 128
OPTIMIZERS = {
    "adamw": AdamW(lr=1e-4),
    "stable_adamw": StableAdamW(lr=1e-4),
    "lamb": Lamb(lr=1e-4),
    "bert_adam": BertAdam(lr=1e-4),
    "muon": Muon(lr=0.02, rest=AdamW(lr=1e-4)),
}
GROUPS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "attention": ("flash_attention", "_softmax", "scaled_dot_product"),
    "optimizer": ("adam", "foreach", "aten::lerp_", "aten::linalg_vector_norm"),
    "vocabulary": ("aten::amax", "aten::argmax", "aten::exp", "aten::sub_", "aten::scatter", "aten::gather", "aten::addmv_"),
    "norms": ("layer_norm", "rms_norm"),
    "activations": ("gelu", "silu"),
    "dropout, gates, factors": ("dropout", "bernoulli", "aten::mul", "aten::div", "aten::addcmul"),
    "copies, joins, fills": ("aten::copy_", "aten::cat", "aten::fill_"),
    "embedding, rows": ("embedding", "index"),
}


class Inputs:
    """Batches of random tokens whose lengths are those of text: few long, many short."""

    def __init__(self, objective: Objective[Any], tokens: int) -> None:
        self.prepare, self.tokens, self.number, self.fills = objective.prepare, tokens, 0, objective.takes_filler

    def __next__(self) -> Any:
        draw = np.random.default_rng(self.number)
        lengths: list[int] = []
        while sum(lengths) < self.tokens:
            lengths.append(int(min(draw.integers(16, 200), LENGTH, self.tokens - sum(lengths))))
        samples = [Sample(number, (draw.integers(5, VOCABULARY, size=n),)) for number, n in enumerate(sorted(lengths))]
        self.number += 1
        room = Capacity(self.tokens, self.tokens // 16, LENGTH)  # filler alone in slots: a compiled layer wants one shape
        inputs = self.prepare(samples, 0, self.number)
        return inputs.to_capacity(room) if self.fills else inputs


def build(family: str, optimizer: str, precision: Any, tokens: int, **options: bool) -> tuple[Updates[Any], Inputs]:
    config = bert(VOCABULARY, 256, 4, 4, 1024, max_length=LENGTH, dropout=0.1)
    if family == "modernbert":
        config = modernbert(VOCABULARY, 256, 4, 4, 384, max_length=LENGTH)
    encoder = Encoder(config)
    head = MaskedLm(masked_lm_head(config), 256, VOCABULARY)
    vocabulary = Vocabulary(size=VOCABULARY, mask_id=4, special_ids=frozenset(range(5)))
    objective = MaskedLanguageModeling(encoder, head, BERT, vocabulary)
    initialise(objective, config.initialisation, 4, 0)
    objective.train()
    settings = TrainingConfig(
        optimizer=OPTIMIZERS[optimizer],
        schedule=Linear(),
        budget=Steps(count=1),
        precision=precision,
        **options,
    )
    table = parameter_table(objective, default_groups(settings.optimizer, objective))
    return Updates(objective, settings, table, step, torch.device("cpu")), Inputs(objective, tokens)


def grouped(events: Any, steps: int) -> dict[str, float]:
    """Milliseconds a step of each group's own operators."""
    found: dict[str, float] = defaultdict(float)
    for event in events:
        name = event.key
        group = next((group for group, marks in GROUPS.items() if any(mark in name for mark in marks)), "other")
        found[group] += event.self_cpu_time_total / 1000 / steps
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=["bert", "modernbert"], default="bert")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="adamw")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--operators", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    updates, stream = build(arguments.family, arguments.optimizer, arguments.precision, arguments.tokens)
    for number in range(2):
        updates([next(stream)], number, 1e-4)
    begin, prepared = time.perf_counter(), 0.0
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for number in range(arguments.steps):
            now = time.perf_counter()
            with record_function("prepare (masking, packing)"):
                inputs = [next(stream)]
            prepared += time.perf_counter() - now
            updates(inputs, number, 1e-4)
    wall = (time.perf_counter() - begin) / arguments.steps
    events = profiler.key_averages()
    print(events.table(sort_by="self_cpu_time_total", row_limit=arguments.operators, max_name_column_width=40))
    groups = grouped(events, arguments.steps)
    whole = sum(groups.values())
    result = {
        "family": arguments.family,
        "optimizer": arguments.optimizer,
        "precision": arguments.precision,
        "tokens_a_step": arguments.tokens,
        "milliseconds_a_step": round(1000 * wall, 1),
        "prepare_milliseconds": round(1000 * prepared / arguments.steps, 1),
        "share_of_operators": {name: round(value / whole, 3) for name, value in groups.items()},
    }
    for key, value in result.items():
        print(f"{key}: {value}")
    print(record(f"step_profile_{arguments.family}", result))


if __name__ == "__main__":
    main()
