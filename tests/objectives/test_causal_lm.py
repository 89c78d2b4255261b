"""Causal language modelling: the next token, from an encoder that does not see it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.builders import CONFIGS, SIZE, VOCAB, gap, random_ids, randomise, tiny_encoder

from bothways.data.sample import Sample
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.layers.heads import MaskedLm, MaskedLmHead
from bothways.objectives.causal_lm import CausalLanguageModeling


def head() -> MaskedLm:
    made = MaskedLm(MaskedLmHead(), SIZE, VOCAB)
    randomise(made, seed=1)
    return made


def samples(lengths: list[int]) -> list[Sample]:
    return [Sample(id=i, sequences=(ids,)) for i, ids in enumerate(random_ids(lengths))]


def test_every_token_predicts_the_next() -> None:
    task = CausalLanguageModeling(tiny_encoder("llama", layers=2), head()).eval()
    inputs = task.prepare(samples([4, 1, 3]), 0, 0)
    assert inputs.rows.tolist() == [0, 1, 2, 5, 6]
    assert torch.equal(inputs.labels, inputs.batch.ids[[1, 2, 3, 6, 7]])
    logits = task.head(task.encoder(inputs.batch).hidden, task.encoder.embedding.tokens.weight)
    expected = sum(
        F.cross_entropy(own[:-1], ids[1:], reduction="sum")
        for own, ids in zip(logits.split([4, 1, 3]), inputs.batch.ids.split([4, 1, 3]), strict=True)
        if len(ids) > 1
    )
    assert gap(task(inputs)["loss"], torch.as_tensor(expected)) <= 1e-5
    assert {name: count.item() for name, count in task.counts(inputs).items()} == {"loss": 5, "accuracy": 5}


def test_a_later_token_changes_no_earlier_prediction() -> None:
    task = CausalLanguageModeling(tiny_encoder("llama", layers=2), head()).eval()
    inputs = task.prepare(samples([9]), 0, 0)
    other = inputs.batch.ids.clone()
    other[-1] = (other[-1] + 1) % VOCAB
    one, two = (task.encoder(batch).hidden[:-1] for batch in (inputs.batch, inputs.batch.with_ids(other)))
    assert torch.equal(one, two)


@pytest.mark.parametrize("name", ["bert", "m2_bert"])
def test_layers_that_see_ahead_are_refused(name: str) -> None:
    assert CONFIGS[name].num_layers > 1
    with pytest.raises(InputError, match=r"encoder\.layers\.0\.mixer: predicting the next token needs causal attention"):
        CausalLanguageModeling(tiny_encoder(name, layers=2), head())


def test_a_convolution_that_sees_ahead_is_refused() -> None:
    """DeBERTa v2's reads a token's two neighbours, whatever attention does."""
    layers = tuple(replace(layer, mixer=replace(layer.mixer, causal=True)) for layer in CONFIGS["deberta-v2"].layers)  # type: ignore[call-arg]
    config = replace(CONFIGS["deberta-v2"], layers=layers)
    with pytest.raises(InputError, match=r"encoder\.convolution: it sees the next token"):
        CausalLanguageModeling(Encoder(config), head())
    CausalLanguageModeling(Encoder(replace(config, convolution=None)), head())
