"""Ideas of different systems in one config: such encoders keep the laws, and learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.builders import VOCAB, gap, random_ids, randomise

from bothways.config import from_json, to_json
from bothways.data.masking import Masking
from bothways.data.sample import Sample
from bothways.data.vocabulary import Vocabulary
from bothways.encoder.config import EncoderConfig, Groups, Layer
from bothways.encoder.encoder import Encoder
from bothways.encoder.initialisation import initialise
from bothways.layers.attention import Attention
from bothways.layers.embedding import Embedding
from bothways.layers.heads import MaskedLm, MaskedLmHead, Transform
from bothways.layers.mlp import Gated, Plain
from bothways.layers.norm import LayerNorm, RmsNorm
from bothways.layers.position import Alibi, Bucketed, Learned, Rotary
from bothways.objectives.masked_lm import MaskedLanguageModeling
from bothways.ops.attention import BY_LENGTH, REFERENCE
from bothways.ragged import Batch

_SHAPE: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": 24, "num_layers": 4, "max_length": 64}
_GEGLU = Gated(size=20, bias=False, out_bias=True)


def _pre(mixer: Attention) -> Layer:
    return Layer(mixer=mixer, mlp=_GEGLU, norm=RmsNorm(), order="pre")


MIXTURES = {
    "alibi in shared layers": EncoderConfig(
        **_SHAPE,
        embedding=Embedding(size=12, norm=LayerNorm()),
        layers=(Layer(mixer=Attention(heads=3, position=Alibi()), mlp=Plain(size=40), norm=LayerNorm(), order="post"),),
        shared=Groups(groups=2),
    ),
    "geglu, rms norm and buckets": EncoderConfig(
        **_SHAPE,
        embedding=Embedding(norm=RmsNorm()),
        layers=(_pre(Attention(heads=3, position=Bucketed(buckets=8, max_distance=20, first_apart=True), bias=False)),),
        final_norm=RmsNorm(),
    ),
    "windows: rotary here, alibi there": EncoderConfig(
        **_SHAPE,
        embedding=Embedding(norm=RmsNorm()),
        layers=(
            _pre(Attention(heads=3, position=Rotary(theta=100.0), window=4)),
            _pre(Attention(heads=4, kv_heads=2, position=Alibi())),
            _pre(Attention(heads=3, position=Rotary(theta=1000.0), window=8)),
        ),
        final_norm=RmsNorm(),
    ),
    "buckets in every other layer, beside learned positions": EncoderConfig(
        **_SHAPE,
        embedding=Embedding(position=Learned(), norm=LayerNorm()),
        layers=(_pre(Attention(heads=3, position=Bucketed(buckets=8, max_distance=20))), _pre(Attention(heads=3, window=3))),
        final_norm=LayerNorm(),
    ),
}
mixtures = pytest.mark.parametrize("config", MIXTURES.values(), ids=MIXTURES.keys())


@mixtures
def test_it_goes_through_json(config: EncoderConfig) -> None:
    assert from_json(EncoderConfig, to_json(config), "config") == config


@mixtures
def test_packed_is_alone_by_every_backend(config: EncoderConfig) -> None:
    encoder = Encoder(config)
    randomise(encoder)
    sequences = random_ids([1, 40, 7, 40])
    with torch.no_grad():
        packed = encoder(Batch.of(sequences)).hidden
        for backend in (REFERENCE, BY_LENGTH):
            encoder.backend = backend
            alone = torch.cat([encoder(Batch.of([sequence])).hidden for sequence in sequences])
            assert gap(packed, alone) <= 1e-5


@mixtures
def test_it_learns(config: EncoderConfig) -> None:
    """Every parameter has a gradient, and a few steps on a few texts bring the loss down."""
    encoder = Encoder(config)
    width = config.embedding.size
    head = MaskedLm(MaskedLmHead(transform=Transform(norm=LayerNorm())), config.hidden_size, VOCAB, width)
    objective = MaskedLanguageModeling(encoder, head, Masking(rate=0.3), Vocabulary(VOCAB, 4, frozenset(range(5))))
    initialise(objective, config.initialisation, config.num_layers, seed=0)
    samples = [Sample(id=i, sequences=(ids.astype(np.int32),)) for i, ids in enumerate(random_ids([12, 30, 21]))]
    inputs = objective.prepare(samples, 0, 0)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = objective(inputs)["loss"] / len(inputs.rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in objective.parameters())
    assert losses[0] == pytest.approx(np.log(VOCAB), rel=0.1)
    assert losses[-1] < 0.75 * losses[0]


def test_layers_with_buckets_share_their_table() -> None:
    """So they have as many heads."""
    layers = tuple(_pre(Attention(heads=heads, position=Bucketed())) for heads in (3, 4))
    with pytest.raises(
        ValueError, match="relative positions share one table, so they, and the number of heads, must be the same"
    ):
        EncoderConfig(**_SHAPE, embedding=Embedding(), layers=layers)
