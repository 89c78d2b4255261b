"""The speedrun's held-out figure for any objective: the loss of the same masked tokens, whoever was trained how."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from task import Task

from bothways.data.masking import Masking
from bothways.data.sample import Epochs, Sample
from bothways.data.vocabulary import Vocabulary
from bothways.objectives.masked_lm import MaskedInputs, MaskedLanguageModeling, PrepareMasked
from bothways.objectives.ngram_relations import NGramRelationModeling
from bothways.ragged import Batch
from bothways.recipes.assembling import figures

_AT_ONCE = 64


@dataclass(frozen=True)
class Given:
    """Stands for `PrepareMasked`: masks are what they are."""

    inputs: MaskedInputs
    vocabulary: Vocabulary

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> MaskedInputs:
        return self.inputs


def held_out(objective: Any, task: Task) -> dict[str, float]:
    """An objective's own figures on the task's masked sequences: `loss`; of replaced tokens, `generator` and what was told.

    What an objective draws beside the masks (what a decoder sees, what a generator puts in) is drawn by sample, as in training.
    Of explicit n-grams, the tokens that the generator fills in.
    """
    if isinstance(objective, NGramRelationModeling):
        vocabulary = objective.masked.prepare.vocabulary
        plain = MaskedLanguageModeling(objective.generator, objective.generator_head, Masking(), vocabulary)
        return {"generator": held_out(plain, task)["loss"]}
    with torch.no_grad():
        return {name: float(value) for name, value in figures(objective.eval(), list(_inputs(objective, task)), "cpu").items()}


def _inputs(objective: Any, task: Task) -> Iterator[Any]:
    for begin in range(0, len(task.ids), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        numbers = range(begin, begin + len(task.ids[part]))
        rows = torch.from_numpy(task.places[part]).flatten().nonzero().flatten()
        labels = torch.from_numpy(task.ids[part]).flatten()[rows].long()
        masked = MaskedInputs(Batch.of(list(task.masked[part]), samples=list(numbers)), rows, labels, len(rows))
        prepare = objective.prepare
        if isinstance(prepare, PrepareMasked):
            yield masked
        else:
            samples = [Sample(number, (task.ids[number],)) for number in numbers]
            given = Given(masked, prepare.masked.vocabulary)
            yield replace(prepare, masked=given)(samples, 0, 0)
