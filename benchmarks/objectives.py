"""What an encoder learns in equal time from different objectives: one network, one corpus, ten minutes of two cores each.

The speedrun's corpus and tokenizer (`speedrun/`), and the recipe `speedrun` at its size "tiny" (ModernBERT's shape, 4 layers of
128); variants differ in the objective alone. Time is counted in tokens, so that a busy machine does not decide: first the loops
of all variants take turns, which gives each one's tokens a second; then each learns from as many tokens as it has in the
minutes. That number is written down once (WORK/speeds.json), and holds for all that follows.

Scores: the loss of the same masked tokens of held-out novels (of a discriminator, that of its generator, which is another,
smaller network: no figure of the model itself); and the accuracy after fine-tuning on SST-2 (a subset), banking77 and TREC's
questions, with the same settings for all, and none chosen for any. What is finished is not done again, whether the work folder
has it or the record (`results/objectives.json`), to which every finished run is added; what was done with other settings is done
anew. A try with `--rows` or `--tokens` leaves the record alone.

    python benchmarks/objectives.py CORPUS.jsonl.gz SST-2/ banking77/ qc.zip --work FOLDER [--minutes 10] [--seeds 2]
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parent / "speedrun"))
from distillation import split
from fixed_masks import held_out
from harness import RESULTS, Turns, in_turn, rates, record
from objectives_table import SCRATCH, Scores, table_of
from pretraining_helps import Task, accuracy, banking77, pooled, sst2, train_table, write
from task import LENGTH, VOCABULARY, prepare, prepared

from bothways.config import to_json
from bothways.data.lexicon import CountedLexicon
from bothways.data.mask_units import NGrams, RateLine, Spans, WholeWords
from bothways.data.masking import ELECTRA, Masking
from bothways.data.mixture import TokenFolder
from bothways.data.ngram_masking import ERNIE_GRAM
from bothways.files import read_object
from bothways.objectives.decoded_lm import GradualUnmasking
from bothways.objectives.ngram_lm import ExplicitNGrams
from bothways.objectives.replaced_token import ReplacedTokens
from bothways.objectives.sharing import DisentangledTables
from bothways.recipes.pretraining import chosen, pretrain, set_up
from bothways.recipes.pretraining import prepare as prepare_run
from bothways.recipes.quick import speedrun
from bothways.recipes.runs import GivenTokenizer, Pretraining
from bothways.training import checkpoint
from bothways.training.loop import train
from bothways.training.record import fingerprint
from bothways.training.schedule import Tokens

PLAIN = "mlm-15"
RATE, SAMPLES = 1e-3, 32
# Fine-tuning: training rows, few enough that what was learned before matters, and passes over them
ROWS, EPOCHS = {"SST-2": 3000, "banking77": 2500, "TREC": 1500}, {"SST-2": 4, "banking77": 8, "TREC": 6}


def mlm(rate: float, **changes: Any) -> Masking:
    """BERT's shares of mask, random and kept tokens; the number of the chosen is exact, as spans and n-grams need it."""
    return Masking(rate=rate, count="rounded", **changes)


# As many n-grams of two tokens as there are tokens, and half as many of three
NGRAMS = ExplicitNGrams(lexicon=CountedLexicon(sizes=(VOCABULARY, VOCABULARY // 2)))

# What each does otherwise than plain masked language modelling of 15 %, one line each
VARIANTS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "mlm-30": {"masking": mlm(0.3)},
    "mlm-40": {"masking": mlm(0.4)},
    "mlm-40-to-15": {"masking": mlm(0.4, schedule=RateLine(to=0.15))},
    "whole-word": {"masking": mlm(0.15, units=WholeWords())},
    "span": {"masking": mlm(0.15, units=Spans())},
    "n-gram": {"masking": mlm(0.15, units=NGrams())},
    "explicit-n-gram": {"masking": ERNIE_GRAM, "ngrams": NGRAMS, "replaced_tokens": ReplacedTokens()},
    "rtd": {"masking": ELECTRA, "replaced_tokens": ReplacedTokens()},
    "rtd-gdes": {"masking": ELECTRA, "replaced_tokens": ReplacedTokens(sharing=DisentangledTables())},
    "bpdec": {"decoder": GradualUnmasking()},
}


def run_of(variant: str, work: Path, tokens: int, seed: int) -> Pretraining:
    """A variant as a run, on what `prepare` has written."""
    plain = speedrun(TokenFolder(folder=str(work / "train")), Tokens(count=tokens), "tiny")
    steps = tokens // plain.batching.tokens
    training = replace(plain.training, seed=seed, log_every=max(steps // 50, 1), evaluate_every=max(steps // 5, 1), keep=1)
    plain = replace(
        plain, masking=mlm(0.15), tokenizer=GivenTokenizer(folder=str(work / "tokenizer")), training=training, max_length=LENGTH,
        held_out_rate=0.15,
    )  # fmt: skip
    return replace(plain, **VARIANTS[variant])


def settings_of(variant: str) -> str:
    """A variant's settings, as a fingerprint; where its text lies, its budget and its seed have no part in it.

    Nor has what is not set, so that a run of today is that of a day when runs have more fields.
    """

    def given(fields: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if value is not None}

    return fingerprint(json.loads(to_json(run_of(variant, Path("work"), 1, 0)), object_hook=given), ())[:12]


def batch_of(work: Path) -> int:
    """Tokens of a step, of any variant."""
    return run_of(PLAIN, work, 1, 0).batching.tokens


def worker(variant: str, work: Path, steps: int, rounds: int, threads: int, pipe: Connection) -> None:
    """One variant's loop, held after every turn."""
    torch.set_num_threads(threads)
    turns, folder, batch = Turns(pipe, steps), work / "paired" / variant, batch_of(work)
    run = run_of(variant, work, steps * (rounds + 2) * batch, 0)
    parts = parts_of(run, folder)

    def after(step: int) -> None:
        turns.count(batch)
        turns.after(step)

    settings = replace(run.training, evaluate_every=None, checkpoint_every=None)
    opener = parts.opener(run, folder)
    train(parts.objective, opener, settings, folder, device="cpu", run=to_json(run), groups=parts.groups(run), after_step=after)


def parts_of(run: Pretraining, folder: Path) -> Any:
    """A run's objective, text and models."""
    tokenizer, shards, lexicon = prepare_run(run, folder, print)
    return set_up(run, tokenizer, shards, chosen("cpu"), lambda line: None, lexicon)


def speeds(variants: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of each variant: plain masked language modelling's median, times the median ratio to it in a round.

    What has been written down holds; a variant that came later takes turns with the plain one.
    """
    path = options.work / "speeds.json"
    known: dict[str, Any] = read_object(path) if path.exists() else recorded().get("speeds", {})
    known = {name: one for name, one in known.items() if one["settings"] == settings_of(name)}
    if missing := [one for one in variants if one not in known]:
        shutil.rmtree(options.work / "paired", ignore_errors=True)
        names = [PLAIN, *(one for one in missing if one != PLAIN)]
        told = in_turn(worker, names, (options.work, options.steps, options.rounds, options.threads), options.rounds)
        measured = {name: [tokens / seconds for tokens, seconds in rows] for name, rows in told.items()}
        plain = known.get(PLAIN, {}).get("tokens_per_second") or statistics.median(measured[PLAIN])
        for name in missing:
            times = statistics.median(one / other for one, other in zip(measured[name], measured[PLAIN], strict=True))
            rounds = rates({name: measured[name]})["rounds"][name]
            speed = {"tokens_per_second": round(plain * times), "times_plain": round(times, 3), "rounds": rounds}
            known[name] = {"settings": settings_of(name), **speed}
        shutil.rmtree(options.work / "paired")
    path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    return known


def tasks_of(options: argparse.Namespace) -> tuple[Task, ...]:
    """Real rows, of which a fixed random choice is trained on."""
    questions = split(options.questions, ROWS["TREC"])
    trec = Task("TREC", questions["train"], {}, {"published": questions["test"]}, 0, 0)
    return tuple(fewer(task, options.rows) for task in (sst2(options.sst2), banking77(options.banking77), trec))


def fewer(task: Task, rows: int | None) -> Task:
    some = random.Random(0).sample(list(task.train), rows or ROWS[task.name])
    return replace(task, train=some, epochs=EPOCHS[task.name], samples=SAMPLES)


def pretrained(variant: str, tokens: int, seed: int, work: Path) -> tuple[Path, dict[str, Any]]:
    """One run of pretraining, or what its folder has of it: its model, and its held-out figures."""
    folder = work / "runs" / f"{variant}-{settings_of(variant)}-{tokens}-seed{seed}"
    done = folder / "heldout.json"
    if not done.exists():
        print(f"{folder.name}: {tokens:,} tokens", flush=True)
        run = run_of(variant, work, tokens, seed)
        result = pretrain(run, folder, print, device="cpu").result
        # loaded, as a run that was finished before has nothing in memory; a generator and a decoder lie in the checkpoint alone
        objective = parts_of(run, folder).objective
        checkpoint.load_weights(result.checkpoint, objective)
        found = {**held_out(objective, prepared(work)), "tokens": result.tokens, "seconds": round(result.seconds, 1)}
        done.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return folder / "model", read_object(done)


def downstream(model: Path, tasks: Sequence[Task], count: int, work: Path, side: str = "pretrained") -> Scores:
    """Accuracies of each task, by fine-tuning seed; of a run's folder, only the figure stays."""
    scores: Scores = {}
    for task in tasks:
        write(train_table(work, task), task.train)
        found = [accuracy(model, task, "test", side, RATE, seed, work) for seed in range(count)]
        scores[task.name] = [pooled(one, task.test) for one in found]
        for made in (work / task.name).glob("*-seed*/*"):
            if made.is_dir():
                shutil.rmtree(made)
    return scores


def one_run(variant: str, tokens: int, seed: int, tasks: Sequence[Task], options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    model, figures = pretrained(variant, tokens, seed, options.work)
    figures |= {"settings": settings_of(variant), "budget": tokens, "seed": seed}
    return {**figures, "downstream": downstream(model, tasks, options.tunings, model.parent / tried(options))}


def fresh_run(tasks: Sequence[Task], options: argparse.Namespace) -> Scores:
    """Those of the same network that was not pretrained; the model of a single step gives its shape."""
    model, _ = pretrained(PLAIN, batch_of(options.work), 0, options.work)
    return downstream(model, tasks, options.tunings, options.work / SCRATCH / tried(options), side="scratch")


def tried(options: argparse.Namespace) -> str:
    return f"downstream-{options.rows}" if options.rows else "downstream"


def recorded() -> dict[str, Any]:
    path = RESULTS / "objectives.json"
    return read_object(path) if path.exists() else {}


def written(result: dict[str, Any], work: Path, whole: bool) -> None:
    """The table, of the runs that there are; and the record, unless this was a try."""
    page, result["differences"] = table_of(result["runs"], result[SCRATCH], PLAIN)
    print(page, flush=True)
    (work / "table.md").write_text(page, encoding="utf-8")
    if whole:
        print(record("objectives", result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("sst2", type=Path)
    parser.add_argument("banking77", type=Path)
    parser.add_argument("questions", type=Path, help="TREC's questions as NLTK has them: qc.zip")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--minutes", type=float, default=10.0, help="of pretraining, at the speed that was measured")
    parser.add_argument("--tokens", type=int, help="the same number for all, in place of minutes")
    parser.add_argument("--seeds", type=int, default=2, help="of pretraining")
    parser.add_argument("--tunings", type=int, default=3, help="seeds of fine-tuning, for each of pretraining")
    parser.add_argument("--rows", type=int, help="of each task to train on, for a quick try")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="of a turn, when speed is measured")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.tunings < 2:
        parser.error("--tunings: an interval needs at least two")
    torch.set_num_threads(options.threads)
    variants = list(dict.fromkeys([PLAIN, *options.variants]))
    unigram, batch = prepare(options.corpus, options.work).unigram, batch_of(options.work)
    fast = speeds(variants, options)
    tokens = {
        name: options.tokens or int(fast[name]["tokens_per_second"] * options.minutes * 60) // batch * batch for name in variants
    }
    tasks = tasks_of(options)
    sizes = {
        one.name: {"rows": len(one.train), "test_rows": sum(map(len, one.test.values())), "epochs": one.epochs} for one in tasks
    }
    tuning = {"lr": RATE, "samples": SAMPLES, "seeds": options.tunings, "tasks": sizes}
    about = {"minutes": None if options.tokens else options.minutes, "unigram": unigram, "fine-tuning": tuning}
    whole = options.rows is None and options.tokens is None
    before = recorded()
    same = whole and all(before.get(key) == value for key, value in about.items())
    runs: dict[str, list[dict[str, Any]]] = {name: before["runs"].get(name, []) if same else [] for name in VARIANTS}
    runs = {name: [one for one in runs[name] if one["settings"] == settings_of(name)] for name in VARIANTS}
    runs |= {name: [one for one in runs[name] if one["budget"] == tokens[name]] for name in variants}
    result = {**about, "speeds": fast, "runs": runs, SCRATCH: before.get(SCRATCH) if same else None}
    # tiny networks on short texts: two processes of one thread do more than one of two
    with ProcessPoolExecutor(
        options.threads, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        fresh = None if result[SCRATCH] else pool.submit(fresh_run, tasks, options)
        asked: dict[Future[Any], str] = {}
        for seed, name in itertools.product(range(options.seeds), variants):
            if seed not in [one["seed"] for one in runs[name]]:
                asked[pool.submit(one_run, name, tokens[name], seed, tasks, options)] = name
        for done in as_completed(asked):
            runs[asked[done]].append(done.result())
            runs[asked[done]].sort(key=itemgetter("seed"))
            written(result, options.work, whole)
        result[SCRATCH] = result[SCRATCH] if fresh is None else fresh.result()
    written(result, options.work, whole)


if __name__ == "__main__":
    main()
