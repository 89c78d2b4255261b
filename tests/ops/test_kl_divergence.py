"""The divergence of two vocabularies: the dense definition, its gradients, and what is never kept."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tests.builders import gap
from torch import Tensor

from bothways.ops import kl_divergence
from bothways.ops.kl_divergence import Projected, linear_kl_divergence

ROWS, VOCAB = 1100, 31  # more rows than two chunks


def side(size: int, seed: int, rows: int = ROWS, vocab: int = VOCAB, scale: float = 1.0, bias: bool = True) -> Projected:
    generator = torch.Generator().manual_seed(seed)
    drawn = [scale * torch.randn(shape, generator=generator) for shape in ((rows, size), (vocab, size), (vocab,))]
    return Projected(*(one.requires_grad_() for one in drawn[:2]), drawn[2].requires_grad_() if bias else None)


def dense(student: Projected, teacher: Projected, temperature: float) -> Tensor:
    ours, theirs = (F.linear(*one) / temperature for one in (student, teacher))
    return F.kl_div(ours.log_softmax(1), theirs.softmax(1).detach(), reduction="sum") * temperature**2


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_it_is_the_dense_one(temperature: float, bias: bool) -> None:
    student, teacher = side(6, 0, bias=bias), side(9, 1)
    given = [one for one in student if one is not None]
    expected, found = dense(student, teacher, temperature), linear_kl_divergence(student, teacher, temperature)
    assert gap(found, expected) <= 1e-5
    for ours, theirs in zip(torch.autograd.grad(3 * found, given), torch.autograd.grad(3 * expected, given), strict=True):
        assert gap(ours, theirs) <= 1e-5


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = side(6, 0), side(9, 1)
    linear_kl_divergence(student, teacher, 2.0).backward()
    assert all(one is None or one.grad is None for one in teacher)
    assert all(one is not None and one.grad is not None and one.grad.any() for one in student)


def test_the_direction_is_teacher_then_student() -> None:
    """KL(teacher ‖ student) of (1/2, 1/2) from (1/4, 3/4) by hand; the other direction is another number."""
    one = torch.ones(1, 1)
    teacher = Projected(one, torch.zeros(2, 1), None)
    student = Projected(one, torch.tensor([[0.0], [math.log(3)]]), None)
    assert linear_kl_divergence(student, teacher, 1.0).item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-6)
    other = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert linear_kl_divergence(teacher, student, 1.0).item() == pytest.approx(other, rel=1e-6)


def test_equal_sides_are_not_apart() -> None:
    student = side(6, 0)
    loss = linear_kl_divergence(student, Projected(*(one.detach() for one in student if one is not None)), 2.0)
    assert loss.item() == 0
    assert not any(one.any() for one in torch.autograd.grad(loss, [one for one in student if one is not None]))


def test_temperature_leaves_the_gradient_as_large() -> None:
    """With T² the gradient of small logits is the same within 20 %; without it, it would fall to a quarter or less."""
    norms = []
    for temperature in (1.0, 2.0, 4.0, 8.0):
        student, teacher = side(6, 0, scale=0.3), side(9, 1, scale=0.3)
        (gradient,) = torch.autograd.grad(linear_kl_divergence(student, teacher, temperature), student.hidden)
        norms.append(gradient.norm().item())
    assert max(norms) / min(norms) < 1.2


def test_no_rows_give_nothing() -> None:
    student, teacher = side(6, 0, rows=0), side(9, 1, rows=0)
    loss = linear_kl_divergence(student, teacher, 2.0)
    loss.backward()
    assert loss.item() == 0
    assert student.weight.grad is not None
    assert not student.weight.grad.any()


def test_filler_of_a_larger_vocabulary_is_left_out() -> None:
    student, teacher = side(6, 0, vocab=VOCAB + 5), side(9, 1)
    assert student.bias is not None
    cut = Projected(student.hidden, student.weight[:VOCAB], student.bias[:VOCAB])
    loss = linear_kl_divergence(student, teacher, 2.0)
    assert gap(loss, dense(cut, teacher, 2.0)) <= 1e-5
    (gradient,) = torch.autograd.grad(loss, student.weight)
    assert gradient[:VOCAB].any()
    assert not gradient[VOCAB:].any()


def test_without_gradients_it_is_the_same() -> None:
    student, teacher = side(6, 0), side(9, 1)
    with torch.no_grad():
        assert torch.equal(linear_kl_divergence(student, teacher, 2.0), linear_kl_divergence(student, teacher, 2.0))
    assert gap(linear_kl_divergence(student, teacher, 2.0), dense(student, teacher, 2.0)) <= 1e-5


def test_logits_are_never_there_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither side's are made for more rows than a chunk, and none are kept for the backward pass."""
    seen: list[int] = []
    linear = F.linear

    def watched(*given: Tensor) -> Tensor:
        seen.append(len(given[0]))
        return linear(*given)

    monkeypatch.setattr(kl_divergence.F, "linear", watched)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.numel()) or one, lambda one: one):
        linear_kl_divergence(side(6, 0), side(9, 1), 2.0)
    assert sum(seen) == 2 * ROWS
    assert max(seen) < ROWS / 2
    assert max(kept) < ROWS * VOCAB / 2


def test_bfloat16_products() -> None:
    student, teacher = side(6, 0), side(9, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear_kl_divergence(student, teacher, 2.0)
    assert found.dtype == torch.float32
    (gradient,) = torch.autograd.grad(found, student.weight)
    assert gradient.dtype == torch.float32
    exact = dense(student, teacher, 2.0)
    assert gap(found, exact) <= 0.02
    assert gap(gradient, torch.autograd.grad(exact, student.weight)[0]) <= 0.02
