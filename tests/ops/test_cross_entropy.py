"""The cross-entropy without kept logits equals the plain one."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from bothways.ops import cross_entropy
from bothways.ops.cross_entropy import linear_cross_entropy

SIZE, VOCAB = 6, 11


def given_rows(rows: int, bias: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    hidden = torch.randn(rows, SIZE, requires_grad=True)
    weight = torch.randn(VOCAB, SIZE, requires_grad=True)
    return hidden, weight, torch.randn(VOCAB, requires_grad=True) if bias else None, torch.randint(VOCAB, (rows,))


@settings(max_examples=40)
@given(rows=st.integers(0, 20), chunk=st.integers(1, 8), bias=st.booleans(), factor=st.sampled_from([1.0, 0.25]))
def test_value_and_gradients(rows: int, chunk: int, bias: bool, factor: float) -> None:
    hidden, weight, offset, labels = given_rows(rows, bias)
    given = [x for x in (hidden, weight, offset) if x is not None]
    expected = (
        F.cross_entropy(F.linear(hidden, weight, offset), labels, reduction="sum") if rows else (hidden.sum() + weight.sum()) * 0
    )
    slopes = torch.autograd.grad(expected * factor, given, allow_unused=True, materialize_grads=True)
    with patch.object(cross_entropy, "_CHUNK", chunk):
        loss, right = linear_cross_entropy(hidden, weight, offset, labels)
    found = torch.autograd.grad(loss * factor, given)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert right == (F.linear(hidden, weight, offset).argmax(dim=1) == labels).sum()
    for ours, theirs in zip(found, slopes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [cross_entropy._CHUNK - 1, cross_entropy._CHUNK, cross_entropy._CHUNK + 1])
def test_the_seam_between_chunks(rows: int) -> None:
    hidden, weight, bias, labels = given_rows(rows, True)
    loss, _ = linear_cross_entropy(hidden, weight, bias, labels)
    expected = F.cross_entropy(F.linear(hidden, weight, bias), labels, reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    found, slopes = torch.autograd.grad(loss, hidden), torch.autograd.grad(expected, hidden)
    torch.testing.assert_close(found, slopes, rtol=1e-5, atol=1e-6)


def test_a_hand_worked_value() -> None:
    """Logits 0 and ln 3: -log(1/4) for the first class, and the guess is the second."""
    weight = torch.tensor([[0.0], [math.log(3)]])
    loss, right = linear_cross_entropy(torch.ones(2, 1), weight, None, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(math.log(4) + math.log(4 / 3))
    assert right == 1


def test_huge_logits_do_not_overflow() -> None:
    loss, _ = linear_cross_entropy(torch.full((1, 1), 1e4), torch.tensor([[1.0], [-1.0]]), None, torch.tensor([1]))
    assert loss.item() == pytest.approx(2e4)


def test_a_table_used_twice_gets_both_gradients() -> None:
    """A tied table is the embedding, too."""
    hidden, table, _, labels = given_rows(5, False)
    loss, _ = linear_cross_entropy(hidden + F.embedding(labels, table), table, None, labels)
    expected = F.cross_entropy(F.linear(hidden + F.embedding(labels, table), table), labels, reduction="sum")
    torch.testing.assert_close(torch.autograd.grad(loss, table), torch.autograd.grad(expected, table), rtol=1e-5, atol=1e-5)


def test_frozen_parts_get_no_gradient() -> None:
    hidden, weight, bias, labels = given_rows(5, True)
    weight.requires_grad_(False)
    linear_cross_entropy(hidden, weight, bias, labels)[0].backward()
    assert weight.grad is None
    assert hidden.grad is not None
    assert bias is not None
    assert bias.grad is not None


def test_evaluation_does_the_work_of_the_forward_pass_alone() -> None:
    """Gradients are made in the forward pass; where none is wanted, none is."""
    hidden, weight, bias, labels = given_rows(5, True)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        loss, _ = linear_cross_entropy(hidden, weight, bias, labels)
    assert not loss.requires_grad
    assert counter.get_total_flops() == 2 * 5 * SIZE * VOCAB


def test_the_count_of_right_ones_has_no_gradient() -> None:
    assert not linear_cross_entropy(*given_rows(3, True))[1].requires_grad
