"""What masking has to know of a run and its text: how often each token occurs, and how many tokens its budget comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bothways.data.mask_units import ByFrequency
from bothways.data.masking import Masking
from bothways.data.packing import Plan
from bothways.data.tokenizer import Tokenizer
from bothways.data.vocabulary import Vocabulary
from bothways.errors import InputError
from bothways.recipes.carrying_out import Say
from bothways.recipes.corpus import Opened, Text
from bothways.recipes.runs import Pretraining
from bothways.training.ramp import micro_batches
from bothways.training.schedule import Steps, Tokens


def vocabulary_of(masking: Masking, tokenizer: Tokenizer, opened: Sequence[Opened], say: Say) -> Vocabulary:
    """What masking knows of a tokenizer; and of a text, whose sources are counted once each, held-out documents with them."""
    vocabulary = Vocabulary.of(tokenizer)
    if not isinstance(masking.units, ByFrequency):
        return vocabulary
    say("counting how often each token occurs")
    shards = {one.shards.folder: one.shards for one in opened}
    return replace(vocabulary, counts=np.sum([one.counts(vocabulary.size) for one in shards.values()], axis=0))


def check_schedule(run: Pretraining) -> None:
    """Raises InputError where a mask rate falls within a budget that is not known in tokens before the first step."""
    line, budget = run.masking.schedule, run.training.budget
    if line is not None and line.tokens is None and not isinstance(budget, Tokens | Steps):
        raise InputError(
            f"masking.schedule: a budget of {budget.type} does not say within how many tokens the rate moves; "
            "set masking.schedule.tokens, or give the budget in tokens or steps"
        )


def scheduled(run: Pretraining, text: Text) -> Masking:
    """The run's masking, with the tokens of its budget where a schedule has none of its own."""
    line, training = run.masking.schedule, run.training
    if line is None or line.tokens is not None:
        return run.masking
    check_schedule(run)
    if isinstance(training.budget, Tokens):
        return run.masking.within(training.budget.count)
    assert isinstance(training.budget, Steps)
    total = training.budget.count
    fill = Plan(np.asarray(text.data.lengths), run.batching, training.seed, text.order).epoch(0).fill
    batches = sum(micro_batches(training.ramp, training.accumulate, step, step, total) for step in range(total))
    return run.masking.within(max(round(batches * fill.tokens / fill.batches), 1))
