"""General text beside a run that learns a domain: what is measured on it, before the first step and ever after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from bothways.data.loader import Loader
from bothways.data.tokenizer import Tokenizer
from bothways.data.vocabulary import Vocabulary
from bothways.errors import InputError
from bothways.recipes.assembling import EVALUATED, figures, measured_objective
from bothways.recipes.carrying_out import Say
from bothways.recipes.continuing import Objectives
from bothways.recipes.corpus import open_corpus, samples
from bothways.recipes.forgetting import GENERAL
from bothways.recipes.runs import Pretraining
from bothways.training.settings import Watch

# Within the run's folder
FOLDER = "general"
# Figures that the report plots
METRICS = (f"{GENERAL}loss", f"{GENERAL}accuracy")


def check_general(run: Pretraining) -> None:
    """Raises InputError where general text is given, and there is nothing to forget or no way to tell."""
    if run.general is None:
        return
    if run.start is None:
        raise InputError("general: a run that begins with fresh weights has nothing to forget; give start, or leave general out")
    if not replace(run, decoder=None).masked_alone:
        what = "no pairs, replaced_tokens, ngrams, vectors, predicts"
        raise InputError(f"general: what is forgotten is told by masked tokens alone; {what}")


@dataclass(frozen=True, eq=False)
class GeneralText:
    """Masked batches of general text, the same each time; `predicted`: their masked tokens."""

    batches: Sequence[Any]
    predicted: int

    @classmethod
    def read(cls, run: Pretraining, folder: Path, tokenizer: Tokenizer, vocabulary: Vocabulary, say: Say) -> GeneralText:
        """The beginning of the run's general text; all of it, where it fills no more batches than are measured.

        Raises:
            InputError: text that cannot be read, or none.
        """
        assert run.general is not None, "of a run that is given general text"
        (opened,) = open_corpus(run.general, folder / FOLDER, tokenizer, lambda line: say(f"general text: {line}"))
        data = samples(opened.shards, tokenizer, run.max_length, opened.documents, run.blocks)
        objective: Any = measured_objective(run, vocabulary)
        loader: Loader[Any] = Loader(data, run.batching, objective.prepare, run.training.seed)
        batches = list(islice(loader.evaluation(), EVALUATED))
        read, predicted = sum(one.tokens for one in batches), sum(int(objective.counts(one)["loss"]) for one in batches)
        if not predicted:
            raise InputError("general: none of its tokens is masked; give more text")
        say(f"general text: {read:,} of {int(data.lengths.sum()):,} tokens are measured on, {predicted:,} of them masked")
        return cls(batches, predicted)

    def beside(self, watch: Watch, objective: Objectives, device: str) -> Watch:
        """The watch, which measures general text as well, and looks before the first step."""
        inner = watch.evaluate

        def evaluate() -> Mapping[str, float]:
            general = figures(objective, self.batches, device)
            return {**(inner() if inner else {}), **{f"{GENERAL}{name}": value for name, value in general.items()}}

        return replace(watch, evaluate=evaluate, first=True)
