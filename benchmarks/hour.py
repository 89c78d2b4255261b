r"""An hour of two cores and 11 million words of novels: what an encoder of ours knows then, beside `run_mlm`'s in the same time.

Ours is the recipe `speedrun` at the size tiny with what `ours` below changes. The baseline is the speedrun's
(`benchmarks/speedrun/baseline.py`: BERT, Trainer, run_mlm's recipe), with as many steps as fit the time. Each is trained
on one core for two hours, side by side, so that neither has the quieter machine; the budget of ours is given in tokens.
Then both answer BLiMP and are fine-tuned on four tasks of GLUE by the same `bothways evaluate`. Whatever is stopped goes on
where it stood.

    python benchmarks/hour.py pretrain CORPUS.jsonl.gz --out W/ours --tokens 34000000
    python benchmarks/speedrun/baseline.py CORPUS.jsonl.gz --work W --lr 3e-4 --steps 20000 --threads 1
    python benchmarks/hour.py evaluate --work W --blimp blimp.tar.gz --glue glue/ \
        ours=W/ours run_mlm=W/baseline-bert-lr0.0003-steps20000
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import ask_how_to_finetune, evaluated, record

from bothways.config import override
from bothways.data.mask_units import RateLine
from bothways.data.source import open_source
from bothways.recipes.pretraining import pretrain
from bothways.recipes.quick import speedrun
from bothways.recipes.runs import GivenTokenizer, Pretraining
from bothways.training.schedule import Tokens

GLUE = ("sst2", "mrpc", "cola", "stsb")
WIDTH, HEADS, MLP, SPREAD = 192, 6, 288, 0.04


def ours(corpus: Path, tokens: int, tokenizer: Path | None) -> Pretraining:
    """The recipe, wider, on a paragraph at a time, with quicker embeddings, and masks that grow rarer."""
    run = speedrun(open_source(corpus, split="line"), Tokens(count=tokens), "tiny")
    shape = [f"encoder.hidden_size={WIDTH}", f"encoder.initialisation.std={SPREAD}"]
    for layer in range(len(run.encoder.layers)):
        shape += [f"encoder.layers.{layer}.mixer.heads={HEADS}", f"encoder.layers.{layer}.mlp.size={MLP}"]
    optimizer = [f"training.optimizer.{field}" for field in ("embedding_lr=2e-3", "rest.lr=2e-3", "weight_decay=0.2")]
    run = override(run, [*shape, *optimizer, "held_out_rate=0.15", "training.log_every=20"])
    if tokenizer is not None:
        run = replace(run, tokenizer=GivenTokenizer(folder=str(tokenizer)))
    return replace(run, masking=replace(run.masking, schedule=RateLine(to=0.15)))


def trained(folder: Path) -> dict[str, Any]:
    """What it took: of a run of ours from its log, of the Trainer's from its curve."""
    if (folder / "log.jsonl").exists():
        lines = {line["kind"]: line for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines())}
        told = {key: lines["train"][key] for key in ("tokens", "seconds")}
        return {**told, "held_out": lines["evaluation"]["metrics"]["loss"]}
    last = json.loads((folder / "curve.jsonl").read_text().splitlines()[-1])
    return {"tokens": last["tokens"], "held_out": last["loss"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("pretrain")
    training.add_argument("corpus", type=Path)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--tokens", type=int, required=True)
    training.add_argument("--tokenizer", type=Path, help="one that exists; else it is trained on the corpus")
    training.add_argument("--threads", type=int, default=1)
    measuring = commands.add_parser("evaluate")
    measuring.add_argument("models", nargs="+", metavar="NAME=FOLDER", help="folders of runs, whose model is in model/")
    measuring.add_argument("--blimp", type=Path, required=True)
    measuring.add_argument("--glue", type=Path, required=True)
    ask_how_to_finetune(measuring, seeds=3, lr=3e-4)
    options = parser.parse_args()
    if options.command == "pretrain":
        torch.set_num_threads(options.threads)
        pretrain(ours(options.corpus, options.tokens, options.tokenizer), options.out, print)
        return
    folders = {name: Path(folder) for name, _, folder in (one.partition("=") for one in options.models)}
    tasks = {"blimp": options.blimp, **dict.fromkeys(GLUE, options.glue)}
    told = evaluated({name: folder / "model" for name, folder in folders.items()}, tasks, options)
    print(record("hour", {name: {"trained": trained(folder), **told[name]} for name, folder in folders.items()}))


if __name__ == "__main__":
    main()
