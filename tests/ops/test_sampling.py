"""Tokens drawn by given numbers: the right shares, a function of the row alone, and never what has no probability."""

from __future__ import annotations

import pytest
import torch

from bothways.ops.sampling import draw_tokens

LARGEST = 1 - 2.0**-24  # the largest number below 1 that a draw can be


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_shares_are_the_softmax(temperature: float) -> None:
    """Evenly spaced numbers give each token its share, to one in a thousand."""
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0])
    uniforms = (torch.arange(1000) + 0.5) / 1000
    drawn = draw_tokens(logits.exp().expand(1000, 4), uniforms, temperature)
    shares = torch.bincount(drawn, minlength=4) / 1000
    torch.testing.assert_close(shares, (logits / temperature).softmax(dim=0), atol=1.1e-3, rtol=0)


def test_a_row_is_drawn_alike_in_any_company() -> None:
    odds, uniforms = torch.randn(40, 101).exp(), torch.rand(40)
    together = draw_tokens(odds, uniforms)
    assert together.tolist() == [draw_tokens(odds[i : i + 1], uniforms[i : i + 1]).item() for i in range(40)]
    assert len(set(together.tolist())) > 10


def test_an_excluded_token_is_not_drawn() -> None:
    odds = torch.ones(200, 3)
    odds[:, 2] = 150.0
    uniforms = torch.arange(200) / 200
    excluded = torch.full((200,), 2)
    assert (draw_tokens(odds, uniforms) == 2).float().mean() > 0.9
    drawn = draw_tokens(odds, uniforms, excluded=excluded)
    assert torch.bincount(drawn, minlength=3).tolist() == [100, 100, 0]
    assert odds[0].tolist() == [1.0, 1.0, 150.0]  # which the loss has yet to read


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_what_is_left_beside_a_certain_token_is_drawn(temperature: float) -> None:
    """An excluded token may be all but certain: the others keep their shares, and where none has any, all are alike."""
    uniforms = (torch.arange(600) + 0.5) / 600
    excluded = torch.full((600,), 1)
    faint = torch.tensor([1e-6, 1.0, 0.0, 1e-6]).expand(600, 4)
    assert torch.bincount(draw_tokens(faint, uniforms, temperature, excluded), minlength=4).tolist() == [300, 0, 0, 300]
    nothing = torch.tensor([0.0, 1.0, 0.0, 0.0]).expand(600, 4)
    assert torch.bincount(draw_tokens(nothing, uniforms, temperature, excluded), minlength=4).tolist() == [200, 0, 200, 200]


@pytest.mark.parametrize("uniform", [0.0, LARGEST])
def test_a_token_without_probability_is_never_drawn(uniform: float) -> None:
    """At either end, whatever the sum of the probabilities was rounded to."""
    odds = torch.randn(64, 101).exp()
    odds[:, [0, 100]] = 0.0
    drawn = draw_tokens(odds, torch.full((64,), uniform))
    assert drawn.min() >= 1
    assert drawn.max() <= 99


def test_no_gradient_and_no_rows() -> None:
    odds = torch.rand(3, 5, requires_grad=True)
    assert not draw_tokens(odds, torch.rand(3)).requires_grad
    assert draw_tokens(odds[:0], torch.rand(0)).shape == (0,)
