"""The bricks of M2-BERT: the short convolution, block-diagonal matrices, filters, and their fresh weights."""

from __future__ import annotations

import math

import pydantic
import pytest
import torch
from tests.builders import gap, randomise
from torch import nn

from bothways.layers.context import Context
from bothways.layers.mlp import BlockDiagonal, BlockLinear, FeedForward
from bothways.layers.monarch import LongConvolution, Monarch, MonarchMixer, ShortConvolution
from bothways.ragged import Ragged


@pytest.mark.parametrize(("ahead", "seen"), [(0, (5, 6, 7)), (1, (4, 5, 6))], ids=["causal", "centred"])
def test_whom_a_token_reaches_by_the_short_convolution(ahead: int, seen: tuple[int, ...]) -> None:
    """Itself and the two after it, in published models; in the centred mode, which is another, its neighbours."""
    short = ShortConvolution(4, ahead)
    x = torch.zeros(12, 4)
    before = short(x, Ragged.of([12]))
    x[5] = 1.0
    moved = (short(x, Ragged.of([12])) - before).abs().sum(dim=1).nonzero().flatten()
    assert tuple(moved.tolist()) == seen


@pytest.mark.parametrize("ahead", [0, 1])
def test_the_short_convolution_is_torchs(ahead: int) -> None:
    """With zeros before and after every sequence, sequence by sequence."""
    short = randomise(ShortConvolution(6, ahead))
    theirs = nn.Conv1d(6, 6, 3, groups=6)
    theirs.load_state_dict(short.state_dict())
    lengths = [3, 1, 7, 0, 2]
    x = torch.randn(sum(lengths), 6)
    expected = [theirs(nn.functional.pad(one.T, (2 - ahead, ahead))).T for one in x.split(lengths) if len(one)]
    assert gap(short(x, Ragged.of(lengths)), torch.cat(expected)) <= 1e-6


def test_a_published_mixer_is_not_symmetric() -> None:
    """Reversed input is not reversed output, even where both directions of the long filters are one and the same."""
    mixer = randomise(MonarchMixer(Monarch(length=16, width=8, residual=False), 4))
    assert isinstance(mixer, MonarchMixer)
    assert mixer.long.future is not None
    mixer.long.future.load_state_dict(mixer.long.past.state_dict())
    x, context = torch.randn(16, 4), Context(ragged=Ragged.of([16]))
    assert gap(mixer(x.flip(0), context).flip(0), mixer(x, context)) > 1e-2


@pytest.mark.parametrize("bias", [True, False])
def test_blocks_are_a_dense_layer_with_zeros(bias: bool) -> None:
    blocks = randomise(BlockLinear(12, 20, 4, bias))
    dense = nn.Linear(12, 20, bias=bias)
    with torch.no_grad():
        dense.weight.copy_(torch.block_diag(*blocks.weight))
        if blocks.bias is not None:
            dense.bias.copy_(blocks.bias)
    x = torch.randn(7, 12)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    assert gap(blocks(one), dense(other)) <= 1e-6
    blocks(one).square().sum().backward()
    dense(other).square().sum().backward()
    assert gap(one.grad, other.grad) <= 1e-6
    assert blocks(x[:0]).shape == (0, 20)


def test_with_four_blocks_the_gate_is_of_the_first_half_of_the_features() -> None:
    mlp = randomise(FeedForward(BlockDiagonal(size=8), 8))
    x = torch.randn(3, 8)
    changed = x.clone()
    changed[:, 4:] = 0
    assert torch.equal(mlp.up(changed)[:, :8], mlp.up(x)[:, :8])
    assert not torch.equal(mlp.up(changed)[:, 8:], mlp.up(x)[:, 8:])


def test_the_grid_of_a_fresh_filter() -> None:
    """From 0 to 1, one cosine and sine of nearly no frequency and one of a turn over the length; decays between 100 and 100^5."""
    long = LongConvolution(Monarch(length=8), 3)
    angle = 2 * math.pi * 3 / 8
    expected = torch.tensor([3 / 7, math.cos(1e-4 * angle), math.cos(angle), -math.sin(1e-4 * angle), -math.sin(angle)])
    torch.testing.assert_close(long.places[0, 3], expected)
    assert long.frequencies.unique().tolist() == [10.0]
    faded = torch.exp(-long.decays[0, 0].abs())
    torch.testing.assert_close(faded, torch.tensor([0.01 ** (1 / 1.5), 0.01**2.0, 0.01 ** (1 / 0.3)]))


def test_an_even_number_of_features_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="features: 4 is no odd number"):
        Monarch(length=8, features=4)
