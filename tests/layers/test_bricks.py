"""The small bricks, by hand: activations, positions, the embedding's sum, gates."""

from __future__ import annotations

import math

import pytest
import torch
from tests.builders import randomise

from bothways.layers.activation import activate
from bothways.layers.embedding import Embedding, TokenEmbedding
from bothways.layers.mlp import FeedForward, Gated, Plain
from bothways.layers.norm import LayerNorm, RmsNorm, build_norm
from bothways.layers.position import Learned, Sinusoidal, sinusoidal_table
from bothways.ragged import Batch


def test_activations() -> None:
    """The exact gelu is x times the normal distribution's Phi; its tanh approximation is up to 5e-4 away."""
    x = torch.tensor([2.0])
    phi = 0.5 * (1 + math.erf(2 / math.sqrt(2)))
    assert activate("gelu", x).item() == pytest.approx(2 * phi, abs=1e-6)
    near = 1 + math.tanh(math.sqrt(2 / math.pi) * (2 + 0.044715 * 8))
    assert activate("gelu_tanh", x).item() == pytest.approx(near, abs=1e-6)
    assert abs(near - 2 * phi) > 5e-5
    assert activate("silu", x).item() == pytest.approx(2 / (1 + math.exp(-2)), abs=1e-6)
    assert activate("relu", torch.tensor([-1.0, 3.0])).tolist() == [0.0, 3.0]
    assert activate("relu2", torch.tensor([-1.0, 3.0])).tolist() == [0.0, 9.0]
    assert activate("tanh", x).item() == pytest.approx(math.tanh(2), abs=1e-6)


def test_the_first_half_goes_through_the_activation() -> None:
    layer = FeedForward(Gated(size=2, activation="relu", bias=False), 1)
    with torch.no_grad():
        layer.up.weight.copy_(torch.tensor([[1.0], [-1.0], [3.0], [5.0]]))
        layer.down.weight.copy_(torch.tensor([[1.0, 1.0]]))
    # relu(2) * 6 + relu(-2) * 10
    assert layer(torch.tensor([[2.0]])).item() == 12.0


def test_a_plain_mlp() -> None:
    layer = FeedForward(Plain(size=2, activation="relu"), 1)
    with torch.no_grad():
        layer.up.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        layer.up.bias.copy_(torch.tensor([1.0, 0.0]))
        layer.down.weight.copy_(torch.tensor([[2.0, 7.0]]))
        layer.down.bias.fill_(0.5)
    assert layer(torch.tensor([[3.0]])).item() == 2 * 4 + 0.5


def test_norms() -> None:
    x = torch.tensor([[1.0, 3.0]])
    torch.testing.assert_close(build_norm(LayerNorm(eps=1e-12), 2)(x), torch.tensor([[-1.0, 1.0]]))
    torch.testing.assert_close(build_norm(RmsNorm(eps=1e-12), 2)(x), x / math.sqrt(5))
    assert build_norm(LayerNorm(bias=False), 2).bias is None
    assert torch.equal(build_norm(None, 2)(x), x)


def test_sinusoidal_positions() -> None:
    table = sinusoidal_table(torch.tensor([0, 3]), 4)
    expected = [[0.0, 1.0, 0.0, 1.0], [math.sin(3), math.cos(3), math.sin(0.03), math.cos(0.03)]]
    torch.testing.assert_close(table, torch.tensor(expected))
    assert sinusoidal_table(torch.tensor([1]), 3).shape == (1, 3)


@pytest.mark.parametrize("offset", [0, 2])
def test_the_embedding_is_a_sum(offset: int) -> None:
    """Rows before the offset belong to no token: RoBERTa's first token has row 2."""
    embedding = TokenEmbedding(Embedding(token_types=2, position=Learned(offset=offset)), 11, 3, 4)
    randomise(embedding)
    assert embedding.positions is not None
    assert embedding.types is not None
    assert embedding.positions.num_embeddings == 4 + offset
    out = embedding(Batch.of([[7], [8, 9]], types=[[1], [0, 1]]))
    tokens, positions, types = (part.weight for part in (embedding.tokens, embedding.positions, embedding.types))
    expected = torch.stack(
        [
            tokens[7] + positions[offset] + types[1],
            tokens[8] + positions[offset] + types[0],
            tokens[9] + positions[offset + 1] + types[1],
        ]
    )
    torch.testing.assert_close(out, expected)


def test_no_types_are_type_0() -> None:
    embedding = TokenEmbedding(Embedding(token_types=2), 11, 3, 4)
    randomise(embedding)
    torch.testing.assert_close(embedding(Batch.of([[7, 8]])), embedding(Batch.of([[7, 8]], types=[[0, 0]])))


def test_sinusoids_are_added() -> None:
    embedding = TokenEmbedding(Embedding(position=Sinusoidal()), 11, 4, 4)
    batch = Batch.of([[7, 8]])
    torch.testing.assert_close(embedding(batch) - embedding.tokens(batch.ids), sinusoidal_table(batch.ragged.positions, 4))
