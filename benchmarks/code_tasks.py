"""CuBERT's tasks from the standard library: a small code encoder, beside a logistic regression on bags of tokens.

Stages, each of which is not done again where the work folder has it, and goes on where it was stopped:

    build      the corpus and the six tasks, from the standard library of this Python
    pretrain   a ModernBERT-shaped network of four layers, for so many minutes of steps: first, which tokens has a generator
               replaced? Then, from that network: which tokens have been masked?
    words      the logistic regressions: how a token counts, and the strength of regularisation, are chosen on dev
    tune       each classification task: the learning rate is chosen on dev, of `--rates`; for exceptions it is that of `holes.py`
    repair     localisation and repair, with both ways of masking
    report     benchmarks/results/code_tasks.json

Replaced tokens (arXiv 2003.10555) come first, as a bug is a token in a wrong place: after 5M masked tokens alone, swapped
operands stay at one half. An exception is a token that is missing, and is asked for as one (`holes.py`); its task has few rows,
so its functions may be longer, it is fine-tuned with five seeds, and the bags of tokens may be of the words around the hole,
too, if that is better on dev. (docs/log.md says what was tried.)

Each row a classification task learns from has its counterpart beside it, so always saying the same is right half of the time;
for exceptions, the most frequent one is what to beat. Differences have a 95 % interval: a paired bootstrap over the files
that the test rows are from.

    python benchmarks/code_tasks.py --work FOLDER [--minutes 20 40] [--stage STAGE] [--rows 24000]
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sysconfig
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from answers import answers
from harness import record
from holes import ASKED, HIDDEN, PASSES, RATE, WIDTHS, around, fine_tuned
from words import bag_of_tokens

from bothways.config import override
from bothways.data.code.build import MANIFEST, CodeTasks, build
from bothways.data.masking import ELECTRA, Masking
from bothways.data.packing import SampleCount
from bothways.data.rows import JsonLines
from bothways.data.source import Column
from bothways.data.table import SingleText, TextPair
from bothways.data.tokenizer_training import ByteLevelBpe
from bothways.files import read_object, replacing, write_text
from bothways.layers.pointer import PointerHead
from bothways.model.folder import load
from bothways.objectives.replaced_token import ReplacedTokens
from bothways.recipes.finetuning import finetune
from bothways.recipes.pretraining import pretrain
from bothways.recipes.quick import speedrun
from bothways.recipes.repairing import repair
from bothways.recipes.runs import Finetuning, GivenTokenizer, Pretraining, Repairing
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Fraction, Hours, Linear, Steps
from bothways.training.settings import TrainingConfig

# How often a classifier sees the rows that it learns from
EPOCHS = {"function_docstring": 4, "variable_misuse": 3, "swapped_operands": 6, "wrong_binary_operator": 4}
# The stage of pretraining that a task begins with, the better one on dev (docs/log.md); that of masked tokens for the others
BEGINS = {"function_docstring": "replaced"}
TASKS = ("function_docstring", "exception", "variable_misuse", "swapped_operands", "wrong_binary_operator")
STAGES = ("build", "pretrain", "words", "tune", "repair", "report")
REPAIR = "variable_misuse_repair"
# Of fine-tuning on exceptions, of which there are few
SEEDS = 5
# Tokens of a step of pretraining
_BATCH = 2048
# Words on either side of a hole that a bag holds
BAGS = (6, 12, 24, 48)
Candidates = Literal["excluded", "zeroed"]
MASKINGS: tuple[Candidates, ...] = ("excluded", "zeroed")


@dataclass(frozen=True)
class Plan:
    """What decides the figures; it is kept in the work folder, and compared.

    Attributes:
        minutes: of steps, on replaced tokens and then on masked ones.
        longest: words that a function has at most, as its tokens are written: those of a string are several.
        longest_exception: the same, of the exception task.
        length: pieces that the encoder reads.
        rows: of a task, that are learned from at most: a random choice of pairs.
        held: of a task, that are held out at most, of either part.
    """

    sources: str
    minutes: tuple[float, float]
    longest: int
    longest_exception: int
    length: int
    rows: int
    held: int
    rates: tuple[float, ...]
    scale: float


def built(plan: Plan, work: Path) -> dict[str, Any]:
    """The manifest of the tasks."""
    folder = work / "tasks"
    if not (folder / MANIFEST).exists():
        with replacing(folder) as partial:
            partial.mkdir()
            build(CodeTasks(paths=(plan.sources,), longest=max(plan.longest, plan.longest_exception)), partial, say=print)
    return read_object(folder / MANIFEST)


def chosen(plan: Plan, work: Path, task: str, part: str) -> Path:
    """The rows of a task that are used: pairs (the original and the bug) drawn from all."""
    path = work / "rows" / task / f"{part}.jsonl"
    if not path.exists():
        longest = plan.longest_exception if task == "exception" else plan.longest
        lines = (work / "tasks" / task / f"{part}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        size = 1 if task == "exception" else 2
        groups = [lines[i : i + size] for i in range(0, len(lines), size)]
        groups = [group for group in groups if len(json.loads(group[0])["function"].split()) <= longest]
        if not groups:
            raise SystemExit(f"{task}: no rows in {part}; --sources has too few functions of at most {longest} words")
        random.Random(0).shuffle(groups)
        most = plan.rows if part == "train" else plan.held
        if task == "exception":  # there are few, and a class must not go
            most = len(lines)
        write_text(path, "".join(line + "\n" for group in groups[: most // size] for line in group))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def pretrained(plan: Plan, work: Path) -> dict[str, dict[str, Any]]:
    """What either stage of pretraining took and came to; their models are in `work/replaced/model` and `work/masked/model`."""
    first, then = plan.minutes
    source = Column(table=JsonLines(paths=(str(work / "tasks" / "corpus.jsonl"),)))
    run = speedrun(source, Hours(hours=first / 60), "tiny")
    run = override(run, [f"encoder.max_length={plan.length}", f"max_length={plan.length}", f"batching.tokens={_BATCH}"])
    # whatever the recipe's is: this one loses nothing of the text
    tokenizer = ByteLevelBpe(vocab_size=run.encoder.vocab_size, specials="bert")
    training = replace(run.training, evaluate_every=250, checkpoint_every=250)
    run = replace(run, tokenizer=tokenizer, training=training, masking=ELECTRA, replaced_tokens=ReplacedTokens())
    start = str(work / "replaced" / "model")
    masked = replace(run, start=start, tokenizer=GivenTokenizer(folder=start), masking=Masking(rate=0.15), replaced_tokens=None)
    masked = replace(masked, embeddings=None, training=replace(training, budget=Hours(hours=then / 60)))
    # lower than the recipe's, which begin with fresh weights
    masked = override(masked, ["training.optimizer.lr=0.015", "training.optimizer.weight_decay=0.1"])
    return {name: _pretrain(work, name, one) for name, one in (("replaced", run), ("masked", masked))}


def _pretrain(work: Path, name: str, run: Pretraining) -> dict[str, Any]:
    told = work / f"{name}.json"
    if not told.exists():
        result = pretrain(run, work / name, print, "benchmarks/code_tasks.py").result
        write_text(told, json.dumps({"seconds": result.seconds, "tokens": result.tokens, "evaluation": result.evaluation}))
    return read_object(told)


def bagged(work: Path, task: str, plan: Plan) -> dict[str, Any]:
    """The logistic regression that is best on dev: accuracy on test, whether each answer is right, and what was tried."""
    path = work / "words" / f"{task}.json"
    if path.exists():
        return read_object(path)
    shown: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "whole": lambda row: " ".join((row.get("docstring", ""), row["function"]))
    }
    if task == "exception":
        shown |= {f"{width} words": partial(_around, width) for width in BAGS}
    parts = {part: rows(chosen(plan, work, task, part)) for part in ("train", "dev", "test")}
    most = Counter(row["label"] for row in parts["train"]).most_common(1)[0][0]
    frequent = sum(row["label"] == most for row in parts["test"]) / len(parts["test"])
    result = bag_of_tokens(parts, shown) | {"most_frequent": frequent}
    write_text(path, json.dumps(result))
    print(f"{task}: bag of tokens {result['accuracy']:.4f}", flush=True)
    return result


def _around(width: int, row: Mapping[str, Any]) -> str:
    return around(row["function"], width)


def tuned(work: Path, task: str, plan: Plan) -> dict[str, Any]:
    """The encoder fine-tuned on a task: accuracy on test, and how often each row is right (of one run, or of several seeds)."""
    path = work / "tuned" / f"{task}.json"
    if path.exists():
        return read_object(path)
    result = _cloze(work, plan) if task == "exception" else _classifier(work, task, plan)
    write_text(path, json.dumps(result))
    print(f"{task}: encoder {result['accuracy']:.4f} at {result['learning_rate']}, dev {result['dev']}", flush=True)
    return result


def _cloze(work: Path, plan: Plan) -> dict[str, Any]:
    """Exceptions: the mean of several seeds, as there are few rows; `right` is the share of seeds that have each row right."""
    parts = {part: rows(chosen(plan, work, "exception", part)) for part in ("train", "dev", "test")}
    right: dict[str, list[list[bool]]] = {"dev": [], "test": []}
    for seed in range(SEEDS):
        model = fine_tuned(
            work / "masked" / "model", parts["train"], work / "runs" / "exception" / f"seed{seed}", seed, plan.scale
        )
        for part, found in right.items():
            found.append([one == row["label"] for one, row in zip(model.answers(parts[part]), parts[part], strict=True)])
    dev, test = (np.array(right[part]) for part in ("dev", "test"))
    seeds, shares = [round(float(one), 4) for one in test.mean(axis=1)], test.mean(axis=0).tolist()
    return {"accuracy": float(test.mean()), "seeds": seeds, "learning_rate": RATE, "dev": float(dev.mean()), "right": shares}


def _classifier(work: Path, task: str, plan: Plan) -> dict[str, Any]:
    dev = {lr: _tune(work, task, plan, lr) for lr in plan.rates}
    best = max(plan.rates, key=lambda lr: dev[lr])
    model = load(str(_folder(work, task, best) / "model"))
    test = rows(chosen(plan, work, task, "test"))
    inputs = [(row["docstring"], row["function"]) if "docstring" in row else row["function"] for row in test]
    right = [one == row["label"] for one, row in zip(answers(model, inputs), test, strict=True)]
    tried = {str(lr): value for lr, value in dev.items()}
    return {"accuracy": sum(right) / len(right), "learning_rate": best, "dev": tried, "right": right}


def _tune(work: Path, task: str, plan: Plan, lr: float) -> float:
    """One run, and its accuracy on dev."""
    train, dev = (chosen(plan, work, task, part) for part in ("train", "dev"))
    run = Finetuning(
        model=str(work / BEGINS.get(task, "masked") / "model"),
        table=JsonLines(paths=(str(train),)),
        held_out=JsonLines(paths=(str(dev),)),
        columns=TextPair(first="docstring", second="function") if task == "function_docstring" else SingleText(text="function"),
        batching=SampleCount(samples=32),
        training=_training(plan, lr, EPOCHS[task], len(rows(train)), 32),
        overflow="cut",
    )
    value = finetune(run, _folder(work, task, lr), print, "benchmarks/code_tasks.py").result.evaluation["accuracy"]
    assert value is not None
    return value


def repaired(work: Path, plan: Plan, masking: Candidates) -> dict[str, Any]:
    """The published figures of localisation and repair, on test."""
    train = chosen(plan, work, REPAIR, "train")
    run = Repairing(
        model=str(work / "masked" / "model"),
        table=JsonLines(paths=(str(train),)),
        held_out=JsonLines(paths=(str(chosen(plan, work, REPAIR, "test")),)),
        head=PointerHead(masking=masking),
        batching=SampleCount(samples=32),
        training=_training(plan, plan.rates[0], EPOCHS["variable_misuse"], len(rows(train)), 32),
        overflow="cut",
    )
    return dict(repair(run, work / "repair" / masking, print, "benchmarks/code_tasks.py").result.evaluation)


def _training(plan: Plan, lr: float, epochs: float, count: int, samples: int) -> TrainingConfig:
    steps = max(round(plan.scale * epochs * count / samples), 4)
    return TrainingConfig(
        optimizer=AdamW(lr=lr, weight_decay=0.01),
        schedule=Linear(warmup=Fraction(of=0.1)),
        budget=Steps(count=steps),
        log_every=20,
        checkpoint_every=500,
    )


def _folder(work: Path, task: str, lr: float) -> Path:
    return work / "runs" / task / f"lr{lr}"


def interval(gaps: Sequence[float], files: Sequence[str]) -> list[float]:
    """Of the mean difference: 95 % of a paired bootstrap over files, whose rows go together."""
    _, numbers = np.unique(files, return_inverse=True)
    sums, counts = np.bincount(numbers, weights=gaps), np.bincount(numbers)
    drawn = np.random.default_rng(0).integers(len(counts), size=(2000, len(counts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return [round(float(one), 4) for one in np.quantile(means, (0.025, 0.975))]


def compared(plan: Plan, work: Path, task: str) -> dict[str, Any]:
    """A task's figures, ours beside the regression's."""
    ours, theirs = tuned(work, task, plan), bagged(work, task, plan)
    files = [row["info"]["file"] for row in rows(chosen(plan, work, task, "test"))]
    gaps = np.array(ours["right"], dtype=float) - np.array(theirs["right"], dtype=float)
    gap = interval(gaps.tolist(), files)
    print(f"{task:22} encoder {ours['accuracy']:.4f}  bag {theirs['accuracy']:.4f}  difference {gap}", flush=True)
    return {
        "encoder": round(ours["accuracy"], 4),
        "bag_of_tokens": round(theirs["accuracy"], 4),
        "most_frequent": round(theirs["most_frequent"], 4),
        "difference": [round(float(gaps.mean()), 4), *gap],
        "beats": gap[0] > 0,
        "begins": BEGINS.get(task, "masked"),
        "learning_rate": ours["learning_rate"],
        "dev": ours["dev"],
        "accuracy_by_seed": ours.get("seeds"),
        "bags": theirs["tried"],
        "files": len(set(files)),
        "rows": {part: len(rows(chosen(plan, work, task, part))) for part in ("train", "dev", "test")},
    }


def reported(plan: Plan, work: Path) -> None:
    """Everything there is, side by side; a stage that is not done is done first."""
    repairs = {masking: repaired(work, plan, masking) for masking in MASKINGS}
    result = {
        "plan": vars(plan) | {"sources": f"the standard library of Python {platform.python_version()}"},
        "epochs": EPOCHS,
        "cloze": {"widths": WIDTHS, "asked": ASKED, "hidden": HIDDEN.rate, "passes": PASSES, "seeds": SEEDS},
        "rows": built(plan, work)["rows"],
        "pretraining": pretrained(plan, work),
        "tasks": {task: compared(plan, work, task) for task in TASKS},
        "repair": repairs,
    }
    for masking, figures in repairs.items():
        print(f"repair, {masking}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    print(record("code_tasks", result))


def carried_out(stage: str, plan: Plan, work: Path) -> None:
    match stage:
        case "build":
            print(json.dumps(built(plan, work)["rows"], indent=2))
        case "pretrain":
            pretrained(plan, work)
        case "words":
            for task in TASKS:
                bagged(work, task, plan)
        case "tune":
            for task in TASKS:
                tuned(work, task, plan)
        case "repair":
            for masking in MASKINGS:
                print(masking, repaired(work, plan, masking))
        case _:
            reported(plan, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sources", default=sysconfig.get_path("stdlib"))
    parser.add_argument("--minutes", type=float, nargs=2, default=[20.0, 40.0], help="of replaced tokens, then of masked ones")
    parser.add_argument("--longest", type=int, default=110)
    parser.add_argument("--longest-exception", type=int, default=2000)
    parser.add_argument("--length", type=int, default=384)
    parser.add_argument("--rows", type=int, default=24_000)
    parser.add_argument("--held", type=int, default=4_000)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--scale", type=float, default=1.0, help="of the epochs: 0.01 shows that all of it works")
    parser.add_argument("--stage", choices=STAGES, action="append", help="only these; default: all")
    given = parser.parse_args()
    plan = Plan(
        str(given.sources), tuple(given.minutes), given.longest, given.longest_exception, given.length,
        given.rows, given.held, tuple(given.rates), given.scale,
    )  # fmt: skip
    given.work.mkdir(parents=True, exist_ok=True)
    note = given.work / "plan.json"
    written = json.loads(json.dumps(vars(plan)))
    if note.exists() and read_object(note) != written:
        raise SystemExit(f"{note}: made with other settings; choose another folder")
    write_text(note, json.dumps(written, indent=2) + "\n")
    for stage in given.stage or STAGES:
        print(f"== {stage}", flush=True)
        carried_out(stage, plan, given.work)


if __name__ == "__main__":
    main()
