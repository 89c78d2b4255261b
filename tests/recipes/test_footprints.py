"""The memory of a step can be computed for every kind of network there is, and is near what real tensors take."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from tests.builders import CONFIGS
from torch import Tensor

from bothways.data.masking import Masking
from bothways.data.sample import Sample
from bothways.data.vocabulary import Vocabulary
from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder
from bothways.families.longformer import longformer
from bothways.layers.heads import MaskedLm, MaskedLmHead
from bothways.objectives.masked_lm import MaskedInputs, MaskedLanguageModeling
from bothways.ops.attention import REFERENCE, Backend
from bothways.ops.global_attention import Globals
from bothways.training.memory import footprint
from bothways.training.optimizer import AdamW, Muon
from bothways.training.schedule import Linear, Steps
from bothways.training.settings import TrainingConfig
from bothways.training.step import step

SETTINGS = TrainingConfig(optimizer=AdamW(lr=1e-3), schedule=Linear(), budget=Steps(count=1))


def build(name: str) -> MaskedLanguageModeling:
    return of(CONFIGS[name])


def of(config: EncoderConfig, backend: Backend | None = None) -> MaskedLanguageModeling:
    vocabulary = Vocabulary(config.vocab_size, 4, frozenset(range(5)))
    width = config.embedding.size
    head = MaskedLm(MaskedLmHead(), config.hidden_size, config.vocab_size, width)
    encoder = Encoder(config)
    encoder.backend = backend
    return MaskedLanguageModeling(encoder, head, Masking(rate=0.3), vocabulary)


def inputs(objective: MaskedLanguageModeling, longest: int) -> MaskedInputs:
    lengths = [longest] * 24 + [longest // 2] * 16
    samples = [Sample(n, (np.arange(length, dtype=np.int32) % 50 + 5,)) for n, length in enumerate(lengths)]
    return objective.prepare(samples, 0, 0)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_autograd_keeps_is_foretold(name: str) -> None:
    """The most that is alive is all that a real forward pass saves, each storage once, and not much more."""
    objective, kept = build(name), {}
    given = inputs(objective, min(CONFIGS[name].max_length, 24))
    objective.encoder.flops(given.batch.ragged)

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step(objective.train(), [given], lambda micro: None)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in objective.parameters()}
    parameters |= {tensor.untyped_storage().data_ptr() for tensor in (given.batch.ids, given.batch.ragged.positions, given.rows)}
    saved = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in parameters)
    found = footprint(lambda: build(name), [given], SETTINGS)
    assert saved <= 1.02 * found.activations
    assert found.activations < 2 * saved


@pytest.mark.slow
@pytest.mark.parametrize("first_global", [False, True])
def test_memory_of_windows_grows_with_the_length(first_global: bool) -> None:
    """Of twice as long a text Longformer's windows keep at most 2.3 times as much; a score for each pair, far more.

    With a global token other operations do it (`ops/global_attention.py`).
    """
    config = longformer(101, 24, 2, 3, 48, max_length=8192, windows=128)

    def kept(length: int, backend: Backend | None) -> int:
        given = of(config).prepare([Sample(0, (np.arange(length, dtype=np.int32) % 50 + 5,))], 0, 0)
        if not first_global:
            return footprint(lambda: of(config, backend), [given], SETTINGS).activations
        batch = given.batch.with_first_global()
        assert batch.global_mask is not None
        # where global tokens stand is read on the host: not possible without contents
        with patch.object(Globals, "of", return_value=Globals.of(batch.global_mask, batch.ragged)):
            return footprint(lambda: of(config, backend), [replace(given, batch=batch)], SETTINGS).activations

    def growth(backend: Backend | None) -> float:
        return kept(8192, backend) / kept(4096, backend)

    assert growth(None) <= 2.3
    assert growth(REFERENCE) > 3


@pytest.mark.slow
def test_what_changes_the_step_changes_its_memory() -> None:
    """Layers that are computed again leave only their inputs; Muon keeps one moment of a matrix where Adam keeps two."""
    given = inputs(build("modernbert"), 24)
    plain, again, muon = (
        footprint(lambda: build("modernbert"), [given], replace(SETTINGS, **changes))
        for changes in ({}, {"recompute": True}, {"optimizer": Muon(lr=1e-3, rest=SETTINGS.optimizer)})
    )
    assert again.activations < 0.6 * plain.activations
    assert (again.weights, again.optimizer) == (plain.weights, plain.optimizer)
    assert muon.optimizer < 0.8 * plain.optimizer
