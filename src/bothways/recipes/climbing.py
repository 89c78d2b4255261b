"""Carrying out a ladder: its rungs one after the other, on one text that is prepared once, measured with the same masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from bothways.config import to_json
from bothways.recipes.carrying_out import Say, claim
from bothways.recipes.ladders import MEASURED, Rung
from bothways.recipes.pretraining import (
    check,
    chosen,
    prepare_shards,
    prepare_tokenizer,
    remember_corpus,
    set_up,
)
from bothways.recipes.runs import FREE
from bothways.recipes.word_vectors import prepare_word_vectors
from bothways.training.loop import finished, train
from bothways.training.speed import gemm_rate
from bothways.training.team import team

# Tokenizers and shards, for each text in each kind of pieces; in a folder of the name of the first rung that reads it
TEXTS = "texts"


def climb(ladder: Sequence[Rung], folder: Path, say: Say = lambda line: None, device: str | None = None) -> list[Path]:
    """Train all rungs, each in a folder of its name, or go on with them; their folders, for `training.compare`.

    What is held out, and how it is masked (15 % of it, all by the mask token), is the same for all rungs of one text. A folder
    has a run's record, log and checkpoints, and no model.

    Raises:
        InputError, Interrupted: as `pretrain`.
    """
    for rung in ladder:
        check(rung.run)
        claim(rung.run, folder / rung.name)
    device, rate = chosen(device), None
    for rung in ladder:
        place = folder / rung.name
        if finished(place, say):
            continue
        say(f"{rung.name}: {rung.change}")
        rate = rate or gemm_rate(device, torch.float32)
        _train(rung, place, folder / TEXTS / _text_of(rung, ladder), say, device, rate)
    return [folder / rung.name for rung in ladder]


def _text_of(rung: Rung, ladder: Sequence[Rung]) -> str:
    """The first rung that reads the same text in the same pieces."""
    return next(one.name for one in ladder if _read(one) == _read(rung))


def _read(rung: Rung) -> tuple[object, ...]:
    return rung.run.source, rung.run.tokenizer, rung.run.encoder.max_length


def _train(rung: Rung, folder: Path, texts: Path, say: Say, device: str, rate: float) -> None:
    run = rung.run
    with team().in_turn():
        remember_corpus(run, texts)
        tokenizer = prepare_tokenizer(run, texts, say)
        shards = prepare_shards(run, texts, tokenizer, say)
        vectors = prepare_word_vectors(run, texts, tokenizer, shards, say)
    parts = set_up(run, tokenizer, shards, device, say, vectors=vectors)
    watch = parts.watch(replace(run, masking=MEASURED), rate)
    train(
        parts.objective, parts.opener(run, folder), run.training, folder,
        device=parts.model.device, run=to_json(run), free=FREE, watch=watch, groups=parts.groups(run),
    )  # fmt: skip
