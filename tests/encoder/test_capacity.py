"""Filler at the end of a batch, which brings it to a fixed shape: nothing that was given learns of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.builders import CONFIGS, gap, random_batch, randomise, tiny_encoder
from torch import Tensor

from bothways.encoder.encoder import Encoder
from bothways.encoder.enhanced_mask_decoder import EnhancedMaskDecoder
from bothways.families.deberta_heads import MaskDecoderHead
from bothways.ops.attention import BY_LENGTH, REFERENCE, Backend
from bothways.ragged import Batch, Capacity

LENGTHS = [13, 9, 9, 2]
# Of filler: sequences of 13, 13 and 4 tokens, as short ones as any that was given among them; then three empty slots
ROOM = Capacity(tokens=sum(LENGTHS) + 30, slots=10, longest=13)
CASES = {**CONFIGS, "m2_bert, filled up": replace(CONFIGS["m2_bert"], filler=0, max_length=16)}


def small(name: str) -> Encoder:
    encoder = Encoder(replace(CASES[name], num_layers=2))
    randomise(encoder)
    return encoder.eval()


def learned(encoder: Encoder, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """Hidden states of what was given, and the gradients of a number made of them."""
    encoder.zero_grad()
    hidden = encoder(batch).hidden[: batch.tokens]
    (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum().backward()
    return hidden.detach(), [p.grad.clone() for p in encoder.parameters() if p.grad is not None]


@pytest.mark.parametrize("backend", [None, BY_LENGTH, REFERENCE])
@pytest.mark.parametrize("name", CASES)
def test_hidden_states_and_gradients_are_those_without_filler(name: str, backend: Backend | None) -> None:
    encoder = small(name)
    encoder.backend = backend
    given = random_batch(LENGTHS)
    if name == "longformer":
        marks = torch.zeros(given.tokens, dtype=torch.bool)
        marks[[0, 5, 13]] = True  # two in the first sequence, one in the second
        given = replace(given, global_mask=marks)
    if (encoder.config.embedding.token_types or 0) > 1:
        given = replace(given, types=(given.ragged.positions > 4).long())
    filled = given.to_capacity(ROOM)
    assert (filled.ragged.tokens, filled.ragged.sequences, filled.ragged.longest) == (63, 10, 13)
    assert (filled.tokens, filled.ragged.filler) == (33, 30)
    (hidden, gradients), (others, beside) = learned(encoder, given), learned(encoder, filled)
    assert gap(others, hidden) <= 1e-5
    largest = torch.stack([gradient.abs().max() for gradient in gradients]).max()
    assert len(gradients) == len(beside)
    for one, other in zip(beside, gradients, strict=True):
        assert gap(one, other, scale=largest) <= 1e-5


@pytest.mark.parametrize("name", CASES)
def test_operations_are_counted_without_filler(name: str) -> None:
    encoder, given = tiny_encoder(name) if name in CONFIGS else small(name), random_batch(LENGTHS)
    filled = given.to_capacity(ROOM)
    assert encoder.flops(filled.ragged) == encoder.flops(given.ragged) > 0
    first = (1, 0, 2, 0)
    assert encoder.flops(filled.ragged, (*first, *[0] * 6)) == encoder.flops(given.ragged, first)


def test_a_decoder_counts_none_either() -> None:
    encoder, given = tiny_encoder("deberta"), random_batch(LENGTHS)
    decoder = EnhancedMaskDecoder(MaskDecoderHead(), encoder.config)
    assert decoder.flops(encoder, given.to_capacity(ROOM).ragged) == decoder.flops(encoder, given.ragged) > 0
