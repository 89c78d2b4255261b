"""Attention scores made anew are those that attention is made of, in every encoder that has attention."""

from __future__ import annotations

import pytest
import torch
from tests.builders import CONFIGS, gap, random_batch, tiny_encoder

from bothways.layers.attention import Attention, SelfAttention
from bothways.ops.scores import equal_lengths, scores
from bothways.ragged import Ragged

LENGTHS = [5, 1, 0, 30, 5, 9]
ATTENTIVE = [name for name, config in CONFIGS.items() if any(isinstance(layer.mixer, Attention) for layer in config.layers)]


@pytest.mark.parametrize("name", ATTENTIVE)
def test_scores_are_those_of_the_layer(name: str) -> None:
    """Their softmax gathers the values as the layer does: positions, windows, groups of heads and causal masks included."""
    encoder, batch = tiny_encoder(name), random_batch(LENGTHS)
    encoded = encoder(batch, keep=True)
    context = encoder.context(batch.ragged)
    for number, layer in enumerate(encoder.stack):
        mixer = layer.mixer
        assert isinstance(mixer, SelfAttention)
        x = layer.entering(encoded.layers[number])
        q, k, v = mixer.queries_keys_values(x, context)
        score, expected = mixer.score(context), mixer(x, context)
        values = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        for rows in equal_lengths(batch.ragged, q.shape[1]):
            made, sees = scores(q, k, rows, score)
            weights = (made if sees is None else made.masked_fill(~sees, -torch.inf)).softmax(dim=3)
            gathered = (weights @ values[rows].transpose(1, 2)).transpose(1, 2).flatten(2)
            assert gap(mixer.out(gathered), expected[rows], expected) <= 1e-5


def test_equal_lengths_hold_every_row_once() -> None:
    groups = [rows.tolist() for rows in equal_lengths(Ragged.of(LENGTHS), heads=3)]
    assert sorted(row for group in groups for text in group for row in text) == list(range(sum(LENGTHS)))
    assert [0, 1, 2, 3, 4] in groups[0]
    assert len(groups[0]) == 2  # both texts of five tokens


def test_many_scores_are_taken_in_turn() -> None:
    """Three texts of 1,200 tokens with two heads: 2.9 million scores each, so no two together."""
    assert [rows.shape for rows in equal_lengths(Ragged.of([1200] * 3), heads=2)] == [(1, 1200)] * 3
