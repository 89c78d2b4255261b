"""Rotary positions: values by hand, and the gradient."""

from __future__ import annotations

import math

import pytest
import torch

from bothways.ops.rotary import rotary_frequencies, rotary_table, rotate


def test_a_hand_worked_rotation() -> None:
    """Head size 4, theta 100: rates 1 and 1/10. Pairs are features (0, 2) and (1, 3)."""
    cos, sin = rotary_table(torch.tensor([0, 2]), 3, rotary_frequencies(4, 100.0))
    torch.testing.assert_close(cos, torch.tensor([[1.0, 1.0], [math.cos(2), math.cos(0.2)]]))
    torch.testing.assert_close(sin, torch.tensor([[0.0, 0.0], [math.sin(2), math.sin(0.2)]]))
    turned = rotate(torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 0.0, 1.0]]), (cos, sin))
    expected = [[1.0, 2.0, 3.0, 4.0], [math.cos(2), -math.sin(0.2), math.sin(2), math.cos(0.2)]]
    torch.testing.assert_close(turned, torch.tensor(expected))


@pytest.mark.parametrize("theta", [10_000.0, 160_000.0])
def test_scores_depend_on_the_distance_alone(theta: float) -> None:
    q, k = torch.randn(2, 8).double()
    table = rotary_table(torch.arange(50), 50, rotary_frequencies(8, theta))
    queries, keys = rotate(q.expand(50, 8), table), rotate(k.expand(50, 8), table)
    scores = queries @ keys.T
    for distance in (-7, 0, 3):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[0].expand_as(diagonal), rtol=0, atol=1e-5)
    assert scores.diagonal(3)[0] != pytest.approx(scores.diagonal(-3)[0].item(), abs=1e-3)


def test_the_gradient_is_the_rotation_back() -> None:
    x = torch.randn(5, 3, 8, dtype=torch.float64, requires_grad=True)
    table = tuple(part.double() for part in rotary_table(torch.tensor([0, 1, 2, 0, 1]), 3, rotary_frequencies(8, 10.0)))
    assert torch.autograd.gradcheck(lambda x: rotate(x, table), x)  # type: ignore[arg-type]


def test_half_precision_turns_in_float32() -> None:
    x = torch.randn(4, 3, 8)
    table = rotary_table(torch.arange(4) * 1000, 4000, rotary_frequencies(8, 10_000.0))
    turned = rotate(x.bfloat16(), table)
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned, rotate(x.bfloat16().float(), table).bfloat16(), rtol=0, atol=0)


def test_every_axis_of_heads() -> None:
    """Queries and keys may be turned together: [tokens, 2, heads, size]."""
    x = torch.randn(6, 2, 3, 4)
    table = rotary_table(torch.arange(6), 6, rotary_frequencies(4, 10_000.0))
    torch.testing.assert_close(rotate(x, table)[:, 1, 2], rotate(x[:, 1, 2], table))
