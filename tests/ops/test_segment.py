"""One vector a sequence: means, largest values, first rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import lengths_lists
from torch import Tensor

from bothways.ops.segment import segment_first, segment_max, segment_mean
from bothways.ragged import Ragged

Reduce = Callable[[Tensor, Ragged], Tensor]
PLAIN: dict[Reduce, Callable[[Tensor], Tensor]] = {
    segment_mean: lambda x: x.mean(dim=0),
    segment_max: lambda x: x.amax(dim=0),
    segment_first: lambda x: x[0],
}


def test_golden() -> None:
    ragged = Ragged.of([2, 0, 1])
    x = torch.tensor([[1.0, -4.0], [3.0, -2.0], [-5.0, 7.0]])
    assert segment_mean(x, ragged).tolist() == [[2.0, -3.0], [0.0, 0.0], [-5.0, 7.0]]
    assert segment_max(x, ragged).tolist() == [[3.0, -2.0], [0.0, 0.0], [-5.0, 7.0]]
    assert segment_first(x, ragged).tolist() == [[1.0, -4.0], [0.0, 0.0], [-5.0, 7.0]]


@settings(max_examples=40)
@given(lengths=lengths_lists, seed=st.integers(0, 3))
@pytest.mark.parametrize("reduce", PLAIN, ids=lambda one: one.__name__)
def test_equal_to_one_sequence_at_a_time(reduce: Reduce, lengths: list[int], seed: int) -> None:
    """Values and gradients; an empty sequence gives zeros and takes none."""
    ragged = Ragged.of(lengths)
    x = torch.randn(ragged.tokens, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)
    slope = torch.randn(len(lengths), 3, dtype=torch.float64)
    expected = torch.stack([PLAIN[reduce](part) if len(part) else torch.zeros(3).double() for part in x.split(lengths)])
    found = reduce(x, ragged)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    ours, theirs = (
        torch.autograd.grad((out * slope).sum(), x, allow_unused=True, materialize_grads=True)[0] if out.requires_grad else x * 0
        for out in (found, expected)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reduce", PLAIN, ids=lambda one: one.__name__)
def test_a_vector_does_not_depend_on_its_batch(reduce: Reduce) -> None:
    """Not even in its last bit."""
    x = torch.randn(1000, 5)
    alone = reduce(x[300:700], Ragged.of([400]))
    assert torch.equal(reduce(x, Ragged.of([300, 400, 300]))[1:2], alone)
