"""Encoders whose modules and tables are shared, sharded over processes: losses and gradients are those of one process.

spread_models.py NAME...    under torchrun; prints the largest difference of each
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from tests.builders import CONFIGS, SIZE, VOCAB, randomise

from bothways.data.masking import ROBERTA
from bothways.data.sample import Sample
from bothways.data.vocabulary import Vocabulary
from bothways.encoder.encoder import Encoder
from bothways.encoder.generator import narrowed
from bothways.layers.heads import MaskedLm, MaskedLmHead
from bothways.layers.replaced_token import ReplacedToken, ReplacedTokenHead
from bothways.objectives.masked_lm import MaskedLanguageModeling
from bothways.objectives.replaced_token import ReplacedTokenDetection, ReplacedTokens
from bothways.objectives.sharing import DisentangledTables, Sharing, WholeEmbedding
from bothways.training.distributed import Shard, spread, whole
from bothways.training.step import step
from bothways.training.team import team

VOCABULARY = Vocabulary(VOCAB, 4, frozenset(range(5)))
REPLACED: dict[str, Sharing] = {"whole-embedding": WholeEmbedding(), "disentangled-tables": DisentangledTables()}


def inputs(vocab: int, objective: MaskedLanguageModeling | ReplacedTokenDetection, number: int) -> Any:
    draw = np.random.default_rng(number)
    samples = [Sample(i, (draw.integers(5, vocab, size).astype(np.int32),)) for i, size in enumerate((9, 4, 12))]
    return objective.prepare(samples, number, 0)


def masked(name: str) -> MaskedLanguageModeling:
    config = CONFIGS[name]
    head = MaskedLm(MaskedLmHead(), config.hidden_size, config.vocab_size, config.embedding.size)
    return MaskedLanguageModeling(Encoder(config), head, ROBERTA, VOCABULARY)


def replaced(sharing: Sharing) -> ReplacedTokenDetection:
    """A generator half as wide beside a BERT, on its embedding."""
    config = CONFIGS["bert"]
    small = narrowed(config, 0.5)
    heads = ReplacedToken(ReplacedTokenHead(), SIZE), MaskedLm(MaskedLmHead(), small.hidden_size, VOCAB, small.embedding.size)
    settings = ReplacedTokens(sharing=sharing)
    return ReplacedTokenDetection(Encoder(config), heads[0], Encoder(small), heads[1], settings, ROBERTA, VOCABULARY)


def difference(name: str) -> float:
    """Of any gradient, relative to the largest of its tensor."""
    objective = replaced(REPLACED[name]) if name in REPLACED else masked(name)
    randomise(objective, 0)
    objective.eval()
    given = [inputs(VOCAB, objective, number) for number in range(3)]
    sums, _ = step(objective, given, lambda _: None)
    expected = {key: tensor.grad for key, tensor in objective.named_parameters()}
    objective.zero_grad()  # sets them to None
    us = team()
    module, spreading = spread(Shard(), objective, us, lambda: given[0], torch.device("cpu"))
    share = [one if us.share.holds(number) else None for number, one in enumerate(given)]
    parts, _ = step(module, share, lambda _: None, spreading)
    losses = [(us.total([float(parts[name])])[0], float(sums[name])) for name in objective.weights]
    worst = max(abs(found - expected) / expected for found, expected in losses)
    for key, parameter in module.named_parameters():
        wanted = expected[key]
        if wanted is None:
            assert parameter.grad is None or not whole(parameter.grad).any(), key
            continue
        assert parameter.grad is not None, key
        worst = max(worst, float((whole(parameter.grad) - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6)))
    return worst


if __name__ == "__main__":
    for name in sys.argv[1:]:
        found = difference(name)
        if team().first:
            print(name, found)
    team().wait()  # all leave together: one that is left behind may find its connections gone
