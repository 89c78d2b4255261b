"""Objectives in one: names, weights, sums and gradients are those of the parts, however deep they nest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.builders import CONFIGS, SIZE, VOCAB, random_ids, randomise

from bothways.data.masking import Masking, Vocabulary
from bothways.data.sample import Sample
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.layers.heads import MaskedLm, MaskedLmHead, Transform
from bothways.objectives.combine import Combine
from bothways.objectives.contrastive import Contrastive, InfoNce
from bothways.objectives.masked_lm import MaskedLanguageModeling
from bothways.training.distributed import named_once
from bothways.training.optimizer import AdamW, default_groups, parameter_table
from bothways.training.step import step

VOCABULARY = Vocabulary(VOCAB, 4, frozenset(range(5)))


def encoder(dropout: float = 0.1) -> Encoder:
    config = CONFIGS["bert"]
    layers = tuple(replace(layer, dropout=dropout) for layer in config.layers)
    made = Encoder(replace(config, num_layers=2, layers=layers))
    randomise(made)
    return made


def masked(trunk: Encoder, rate: float = 0.3) -> MaskedLanguageModeling:
    head = MaskedLm(MaskedLmHead(transform=Transform()), SIZE, VOCAB)
    randomise(head, seed=1)
    return MaskedLanguageModeling(trunk, head, Masking(rate=rate), VOCABULARY)


def joint(trunk: Encoder) -> Combine:
    views = Contrastive(trunk, "mean", InfoNce(temperature=0.5), views=True)
    return Combine({"masked_lm": masked(trunk), "contrastive": views}, weights={"contrastive": 0.1})


def samples(count: int = 5) -> list[Sample]:
    return [Sample(id=i, sequences=(ids,)) for i, ids in enumerate(random_ids([7 + i for i in range(count)]))]


def test_names_and_weights() -> None:
    task = joint(encoder())
    assert dict(task.weights) == {"masked_lm/loss": 1.0, "contrastive/loss": 0.1}
    inputs = task.prepare(samples(), 0, 0)
    names = {"masked_lm/loss", "masked_lm/accuracy", "masked_lm/masked", "masked_lm/mask_token"}
    assert task(inputs).keys() == task.counts(inputs).keys() == names | {"contrastive/loss", "contrastive/accuracy"}


def test_sums_are_those_of_the_parts() -> None:
    trunk = encoder().eval()
    task = joint(trunk).eval()
    inputs, counts = task.prepare(samples(), 3, 1), task.counts(task.prepare(samples(), 3, 1))
    sums = task(inputs)
    for name in ("masked_lm", "contrastive"):
        part = task.parts[name]
        own = part.prepare(samples(), 3, 1)  # type: ignore[operator, union-attr]
        expected, denominators = part(own), part.counts(own)  # type: ignore[operator]
        assert {f"{name}/{key}": value.item() for key, value in expected.items()} == {
            key: value.item() for key, value in sums.items() if key.startswith(f"{name}/")
        }
        assert all(counts[f"{name}/{key}"] == value for key, value in denominators.items())
    assert inputs.tokens == inputs.parts["masked_lm"].tokens == sum(7 + i for i in range(5))  # text is read twice, and there once
    assert task.flops(inputs) == sum(task.parts[name].flops(one) for name, one in inputs.parts.items())  # type: ignore[operator]


def test_gradients_are_the_weighted_sums_of_the_parts() -> None:
    trunk = encoder().eval()
    task = joint(trunk).eval()
    inputs = task.prepare(samples(), 0, 0)
    step(task, [inputs], lambda number: None)
    found = {name: parameter.grad.clone() for name, parameter in task.named_parameters() if parameter.grad is not None}
    task.zero_grad()
    for name, weight in (("masked_lm", 1.0), ("contrastive", 0.1)):
        part, own = task.parts[name], inputs.parts[name]
        (weight * part(own)["loss"] / part.counts(own)["loss"]).backward()  # type: ignore[operator]
    assert len(found) > 20
    for name, parameter in task.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_encoder_is_one() -> None:
    """Both parts train it, the optimizer has each of its weights once, and a checkpoint too."""
    trunk = encoder()
    task = joint(trunk)
    own = sum(parameter.numel() for parameter in trunk.parameters())
    head = sum(parameter.numel() for parameter in task.parts["masked_lm"].head.parameters())  # type: ignore[union-attr]
    rows = parameter_table(task, default_groups(AdamW(lr=1e-3), task))
    assert sum(int(np.prod(row.shape)) for row in rows) == own + head
    assert sum(tensor.numel() for tensor in named_once(task).values()) == own + head


def test_combinations_nest() -> None:
    trunk = encoder().eval()
    plain, outer = joint(trunk).eval(), None
    outer = Combine({"both": plain, "easy": masked(trunk, 0.1)}, weights={"both": 0.5}).eval()
    assert dict(outer.weights) == {"both/masked_lm/loss": 0.5, "both/contrastive/loss": 0.05, "easy/loss": 1.0}
    assert outer.whole_batch
    inputs = outer.prepare(samples(), 0, 0)
    sums, own = outer(inputs), plain(plain.prepare(samples(), 0, 0))
    assert all(sums[f"both/{name}"] == value for name, value in own.items())
    assert not Combine({"one": masked(trunk)}).whole_batch


def test_two_views_differ_by_dropout_alone() -> None:
    trunk = encoder()
    views = Contrastive(trunk, "mean", InfoNce(temperature=0.05), views=True)
    inputs = views.prepare(samples(), 0, 0)
    assert inputs.pairs == 5
    assert views.train()(inputs)["loss"] > views.eval()(inputs)["loss"] + 1e-3
    with pytest.raises(InputError, match="no dropout"):
        Contrastive(encoder(dropout=0.0), "mean", InfoNce(), views=True)


def test_bad_combinations() -> None:
    one = masked(encoder())
    with pytest.raises(InputError, match="no objective"):
        Combine({})
    for name in ("a/b", "a.b", "", "items", "type"):
        with pytest.raises(InputError, match=f"'{name}' is no name"):
            Combine({name: one})
    with pytest.raises(InputError, match="a weight for 'other', which is no part; there is one"):
        Combine({"one": one}, weights={"other": 2.0})
