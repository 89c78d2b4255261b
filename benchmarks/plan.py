"""What `bothways plan` foretells beside what then happens: three runs of about a minute each, every part in a process of its own.

A plan is made from the run's config and text alone (`bothways plan RUN.json --json`); then the run is carried out, its
tokenizer and shards prepared before, by another process. Wall-clock is that of the steps, divided by the change in the
machine's rate of matrix products between the plan and the run (both sampled by the same code). Memory is the most that
the training process held, by the kernel's account, when its last step was done.

    python benchmarks/plan.py CORPUS.jsonl[.gz] [--seconds 60] [--rounds 1]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

from harness import record

from bothways.config import from_json, to_json
from bothways.data.packing import TokenBudget
from bothways.data.source import Column, open_source
from bothways.families.bert import masked_lm_head
from bothways.families.deberta import deberta
from bothways.recipes.classic import bert
from bothways.recipes.modern import modernbert_short
from bothways.recipes.runs import Pretraining
from bothways.training.schedule import Steps

PIECES, CHARACTERS = 600, 6_000
# Seconds of steps that a plan measures: more than it does by itself, for a machine with other work
MEASURED = 20


def bert_4x128(source: Column) -> Pretraining:
    return bert(replace(source, split="line"), Steps(count=1), "tiny")


def modernbert_6x256_long(source: Column) -> Pretraining:
    """Whole pieces: samples of up to 1,024 tokens."""
    run = modernbert_short(source, Steps(count=1), "mini")
    return replace(run, encoder=replace(run.encoder, max_length=1024), max_length=1024)


def deberta_4x192(source: Column) -> Pretraining:
    run = bert(replace(source, split="line"), Steps(count=1), "tiny")
    encoder = deberta(8192, 192, 4, 4, 768, max_length=256)
    return replace(
        run, family="deberta", encoder=encoder, head=masked_lm_head(encoder), max_length=256, batching=TokenBudget(tokens=3072)
    )


RUNS: dict[str, Callable[[Column], Pretraining]] = {
    one.__name__: one for one in (bert_4x128, modernbert_6x256_long, deberta_4x192)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="of steps, as the plan foretells them")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        return _part(given.part, given.corpus)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        corpus = _pieces(given.corpus, Path(name) / "corpus.jsonl")
        for round_ in range(given.rounds):
            for run, make in RUNS.items():
                rows.append(_both(run, make(corpus), Path(name) / f"{run}-{round_}", given.seconds))
                print(json.dumps(rows[-1], indent=2), flush=True)
    worst = {key: max(abs(row[key] - 1) for row in rows) for key in ("seconds_ratio", "memory_ratio")}
    print(worst, record("plan", {"seconds": given.seconds, "worst_error": worst, "runs": rows}))


def _both(name: str, run: Pretraining, folder: Path, seconds: float) -> dict[str, Any]:
    """The plan of a run, and the run."""
    folder.mkdir()
    path = folder / "config.json"
    path.write_text(to_json(run))
    _python(__file__, str(folder), "--part", "prepare")
    plan = json.loads(_python("-m", "bothways.cli", "plan", str(path), "--json", "--seconds", str(MEASURED)))
    count = max(round(seconds * plan["tokens_per_second"] / plan["micro_batch"]), 10)
    path.write_text(to_json(replace(run, training=replace(run.training, budget=Steps(count=count), log_every=10))))
    _python(__file__, str(folder), "--part", "train")
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "train"][-1]
    before, during = plan["measured"]["rate"], harmonic_mean([line["gemm_rate"] for line in lines if line.get("gemm_rate")])
    foretold = count * plan["micro_batch"] / plan["tokens_per_second"]
    return {
        "run": name,
        "steps": count,
        "tokens_foretold": round(count * plan["micro_batch"]),
        "steps_measured": plan["measured"]["steps"],
        "tokens_measured": round(plan["measured"]["tokens"]),
        "tokens": last["tokens"],
        "seconds_foretold": round(foretold, 1),
        "seconds": last["seconds"],
        "gemm_rate_before": round(before / 1e9, 1),
        "gemm_rate_during": round(during / 1e9, 1),
        "seconds_ratio": round(last["seconds"] / (foretold * before / during), 3),
        "memory_foretold": plan["memory"]["peak"],
        "memory": last["memory"],
        "memory_ratio": round(last["memory"] / plan["memory"]["peak"], 3),
        "load": round(os.getloadavg()[0], 1),
        "program": plan["memory"]["program"],
    }


def _part(part: str, folder: Path) -> None:
    from bothways.recipes import pretraining

    run = from_json(Pretraining, (folder / "config.json").read_text(), "config.json")
    if part == "train":
        pretraining.pretrain(run, folder / "run", print)
        return
    pretraining.remember_corpus(run, folder / "run")
    tokenizer = pretraining.prepare_tokenizer(run, folder / "run", print)
    pretraining.prepare_shards(run, folder / "run", tokenizer, print)


def _pieces(corpus: Path, path: Path) -> Column:
    """The first lines of a corpus, joined to pieces of some thousand characters: a corpus of its own."""
    from bothways.data.source import read_documents

    pieces: list[str] = [""]
    for document in read_documents(open_source(corpus, split="line")):
        pieces[-1] += document.text + "\n"
        if len(pieces[-1]) > CHARACTERS:
            pieces.append("")
        if len(pieces) > PIECES:
            break
    path.write_text("".join(json.dumps({"text": piece}) + "\n" for piece in pieces if piece))
    source = open_source(path)
    assert isinstance(source, Column)
    return source


def _python(*arguments: str) -> str:
    # the command line sets it, which the plan goes through; without it the run's threads would wait in another way
    environment = os.environ | {"GOMP_SPINCOUNT": "1000"}
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed: exit code {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
