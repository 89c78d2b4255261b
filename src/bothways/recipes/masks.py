"""What masking has to know of a run and its text: how often each token occurs, and how many tokens its budget comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from bothways.data.loader import WHOLE, Loader, Share, Stream
from bothways.data.mask_units import ByFrequency
from bothways.data.masking import Masking
from bothways.data.packing import Plan
from bothways.data.tokenizer import Tokenizer
from bothways.data.vocabulary import Vocabulary
from bothways.errors import InputError
from bothways.objectives.masked_lm import MaskedInputs, PrepareMasked
from bothways.recipes.carrying_out import Say
from bothways.recipes.corpus import Opened, Text
from bothways.recipes.runs import Pretraining
from bothways.training import record
from bothways.training.ramp import micro_batches
from bothways.training.schedule import Elapsed, Hours, Steps, Tokens
from bothways.training.trainable import OpenStream, State

# While the steps are timed that make tokens of hours, the rate is the first
_FAR = 1 << 62


def vocabulary_of(masking: Masking, tokenizer: Tokenizer, opened: Sequence[Opened], say: Say) -> Vocabulary:
    """What masking knows of a tokenizer; and of a text, whose sources are counted once each, held-out documents with them."""
    vocabulary = Vocabulary.of(tokenizer)
    if not isinstance(masking.units, ByFrequency):
        return vocabulary
    say("counting how often each token occurs")
    shards = {one.shards.folder: one.shards for one in opened}
    return replace(vocabulary, counts=np.sum([one.counts(vocabulary.size) for one in shards.values()], axis=0))


def check_schedule(run: Pretraining) -> None:
    """Raises InputError where a mask rate is to move beside another task, or within a budget of no number of tokens."""
    line = run.masking.schedule
    if line is not None and not run.masked_alone:
        raise InputError(
            "masking.schedule: a rate that moves goes with masked tokens alone, without pairs, decoder, replaced_tokens, ngrams, "
            "vectors, predicts"
        )
    if line is not None and line.tokens is None and isinstance(run.training.budget, Elapsed):
        raise InputError(
            "masking.schedule: a budget of the clock does not say within how many tokens the rate moves; "
            "set masking.schedule.tokens"
        )


def scheduled(run: Pretraining, text: Text) -> Masking:
    """The run's masking; a schedule without tokens of its own has those of the budget, but for `Hours`, which has none yet."""
    line, training = run.masking.schedule, run.training
    match training.budget:
        case Tokens(count=count):
            return run.masking.within(count)
        case Steps(count=count) if line is not None and line.tokens is None:
            fill = Plan(np.asarray(text.data.lengths), run.batching, training.seed, text.order).epoch(0).fill
            batches = sum(micro_batches(training.ramp, training.accumulate, step, step, count) for step in range(count))
            return run.masking.within(max(round(batches * fill.tokens / fill.batches), 1))
        case _:
            return run.masking


def opener(
    run: Pretraining, loader: Loader[MaskedInputs], prepare: PrepareMasked, folder: Path, origin: int = 0
) -> OpenStream[MaskedInputs]:
    """Opens the loader's streams for a run in `folder`, whose record has the tokens that `Hours` came to.

    Args:
        origin: as `Loader.open`'s.
    """
    if run.masking.schedule is None or not isinstance(run.training.budget, Hours):
        return partial(loader.open, origin=origin)

    def opened(state: State | None, share: Share = WHOLE, /) -> Stream[MaskedInputs]:
        known = record.read(folder)
        tokens = known.budget.count if known and isinstance(known.budget, Tokens) else _FAR
        return loader.preparing(prepare.within(tokens)).open(state, share, origin)

    return opened
