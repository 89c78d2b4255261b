"""One run of the speedrun in our own engine: an entry of `entries.py`, a budget of tokens, a seed.

Writes `curve.jsonl` of (step, tokens, held-out loss) into the run's folder, and `before.json`, the seconds that went by
before the first step (word vectors are not for nothing). Started again, it goes on.

    python benchmarks/speedrun/run.py CORPUS.jsonl.gz --work build/speedrun --entry muon --tokens 1000000 [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from entries import ENTRIES, Entry
from task import LENGTH, VOCABULARY, WIDTH, Task, prepare

from bothways.config import to_json
from bothways.data.cooccurrence import Cooccurrence, count_pairs
from bothways.data.loader import Loader
from bothways.data.packing import TokenBudget
from bothways.data.vocabulary import Vocabulary
from bothways.encoder.encoder import Encoder
from bothways.encoder.initialisation import initialise
from bothways.families import BY_NAME
from bothways.families.family import Heads, Spec
from bothways.layers.heads import MaskedLm
from bothways.model.model import Model
from bothways.objectives.masked_lm import MaskedLanguageModeling
from bothways.ragged import Batch
from bothways.recipes.word_vectors import begin_with, word_vectors
from bothways.training import log
from bothways.training.loop import train
from bothways.training.schedule import Tokens
from bothways.training.settings import TrainingConfig, Watch


def objective(entry: Entry, task: Task, tokens: int, seed: int) -> MaskedLanguageModeling:
    encoder = Encoder(entry.encoder)
    head = MaskedLm(entry.head, WIDTH, VOCABULARY)
    made = MaskedLanguageModeling(encoder, head, entry.masking.within(tokens), Vocabulary.of(task.tokenizer, VOCABULARY))
    initialise(made, entry.encoder.initialisation, entry.encoder.num_layers, seed)
    if entry.vectors is not None:
        begin_with(_vectors(entry.vectors, task), made)
    if entry.frequencies:
        assert head.bias is not None, "an output with biases"
        with torch.no_grad():
            head.bias.copy_(torch.from_numpy(task.frequencies))
    return made


def _vectors(settings: Cooccurrence, task: Task) -> torch.Tensor:
    """Counted in the text to learn from; what is held out lies elsewhere."""
    every = np.arange(len(task.shards.lengths))
    pairs = count_pairs(settings, [(task.shards, every)], VOCABULARY, task.tokenizer.special_ids)
    return word_vectors(pairs, WIDTH, settings.smoothing)


def saved_as(entry: Entry, task: Task, made: MaskedLanguageModeling) -> Model | None:
    """The model to save; None where no published family has this network."""
    if entry.family is None:
        return None
    spec = Spec(encoder=entry.encoder, heads=Heads(masked_lm=entry.head), pad_id=task.tokenizer.pad_id or 0)
    model = Model(BY_NAME[entry.family], spec, task.tokenizer, name=entry.family)
    model.encoder = made.encoder
    model.heads["masked_lm"] = made.head
    return model


def held_out(made: MaskedLanguageModeling, task: Task) -> float:
    """The figure."""
    total, count = 0.0, int(task.places.sum())
    for begin in range(0, len(task.ids), 64):
        part = slice(begin, begin + 64)
        hidden = made.encoder(Batch.of(list(task.masked[part]))).hidden
        rows = torch.from_numpy(task.places[part]).flatten().nonzero().flatten()
        labels = torch.from_numpy(task.ids[part]).flatten()[rows].long()
        total += float(made.head.loss(hidden[rows], made.encoder.embedding.tokens.weight, labels)[0])
    return total / count


def run(
    entry: Entry,
    task: Task,
    tokens: int,
    seed: int,
    folder: Path,
    evaluations: int,
    after_step: Callable[[int], None] | None = None,
) -> list[dict[str, float]]:
    """Train and save the model; the curve."""
    begin = time.perf_counter()
    made = objective(entry, task, tokens, seed)
    before = round(time.perf_counter() - begin, 2)
    size = sum(p.numel() for p in made.parameters())
    print(f"{size:,} parameters, made in {before} s; unigram {task.unigram:.3f}", flush=True)
    loader = Loader(task.data, TokenBudget(tokens=entry.batch * LENGTH), made.prepare, seed)
    steps = tokens // (entry.batch * LENGTH)
    settings = TrainingConfig(
        optimizer=entry.optimizer, schedule=entry.schedule, budget=Tokens(count=tokens), clip=entry.clip, seed=seed,
        log_every=max(steps // 50, 1), evaluate_every=max(steps // evaluations, 1) if evaluations else None, keep=1,
    )  # fmt: skip
    watch = Watch(evaluate=lambda: {"heldout": held_out(made, task)})
    config = json.dumps({"entry": json.loads(to_json(entry)), "tokens": tokens, "seed": seed})
    train(made, loader.open, settings, folder, device="cpu", run=config, watch=watch, after_step=after_step)
    if (made_of := saved_as(entry, task, made)) is not None:
        made_of.save(folder / "model")
    lines = [line for line in log.read(folder) if line["kind"] == "evaluation"]
    curve = [{"step": one["step"], "tokens": one["tokens"], "loss": one["metrics"]["heldout"]} for one in lines]
    (folder / "curve.jsonl").write_text("".join(json.dumps(one) + "\n" for one in curve))
    (folder / "before.json").write_text(json.dumps({"seconds": before}))
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--entry", choices=ENTRIES, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--lr", type=float, help="another learning rate than the entry's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = prepare(options.corpus, options.work)
    entry = ENTRIES[options.entry]
    if options.lr is not None:
        entry = replace(entry, optimizer=replace(entry.optimizer, lr=options.lr))
    name = f"{options.entry}-{options.tokens}-seed{options.seed}" + (f"-lr{options.lr:g}" if options.lr else "")
    for line in run(entry, task, options.tokens, options.seed, options.work / "runs" / name, options.evaluations):
        print(line)


if __name__ == "__main__":
    main()
