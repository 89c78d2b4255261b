"""Long convolutions: by FFT as by definition, forward and backward, in both directions; the sequences of a batch stay apart."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from tests.builders import gap, lengths_lists
from torch import Tensor

from bothways.ops.long_convolution import DIRECT, FFT, Convolution, long_convolution
from bothways.ragged import Ragged

SIZE = 6


def kernels(length: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """x of many rows is drawn apart; these are past, future and skip."""
    generator = torch.Generator().manual_seed(length)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in ((length, SIZE), (length, SIZE), (SIZE,))]


@pytest.mark.parametrize("length", [1, 2, 17, 128, 311])
@pytest.mark.parametrize("both", [True, False], ids=["both ways", "causal"])
def test_by_fft_as_by_definition(length: int, both: bool) -> None:
    """Within 1e-5 in float32, negative lags included; so are all gradients."""
    ragged, results = Ragged.of([length] * 3), []
    for backend in (FFT, DIRECT):
        past, future, skip = (one.requires_grad_() for one in kernels(length))
        x = torch.randn(ragged.tokens, SIZE, generator=torch.Generator().manual_seed(0)).requires_grad_()
        out = long_convolution(x, ragged, past, future if both else None, skip, backend)
        (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
        results.append([out, x.grad, past.grad, skip.grad, *([future.grad] if both else [])])
    for ours, expected in zip(*results, strict=True):
        assert ours is not None
        assert expected is not None
        assert gap(ours, expected) <= 1e-5


@pytest.mark.parametrize("backend", [FFT, DIRECT], ids=lambda backend: backend.name)
def test_lags_by_hand(backend: Convolution) -> None:
    """One token that is 1, in the middle: what comes out is the kernel, the future reversed before it."""
    x = torch.zeros(5, 1, dtype=torch.float64)
    x[2] = 1.0
    past, future = torch.tensor([[1.0], [2], [3], [4], [5]]).double(), torch.tensor([[10.0], [20], [30], [40], [50]]).double()
    out = long_convolution(x, Ragged.of([5]), past, future, torch.tensor([100.0]).double(), backend)
    torch.testing.assert_close(out[:, 0], torch.tensor([20.0, 10, 101, 2, 3]).double())


@settings(max_examples=20)
@given(lengths=lengths_lists)
def test_each_sequence_is_convolved_alone(lengths: list[int]) -> None:
    past, future, skip = kernels(20)
    ragged = Ragged.of(lengths)
    x = torch.randn(ragged.tokens, SIZE)
    together = long_convolution(x, ragged, past, future, skip).split(lengths)
    for one, out in zip(x.split(lengths), together, strict=True):
        assert gap(out, long_convolution(one, Ragged.of([len(one)]), past, future, skip, DIRECT)) <= 1e-5


def test_half_precision_is_computed_in_float32() -> None:
    past, future, skip = (one.bfloat16() for one in kernels(64))
    x, ragged = torch.randn(64, SIZE).bfloat16(), Ragged.of([64])
    out = long_convolution(x, ragged, past, future, skip)
    exact = long_convolution(x.double(), ragged, past.double(), future.double(), skip.double(), DIRECT)
    assert out.dtype == torch.bfloat16
    assert gap(out, exact) <= 2**-7


def test_kernels_that_are_too_short() -> None:
    with pytest.raises(ValueError, match="kernels of 4 positions for a sequence of 5"):
        long_convolution(torch.zeros(5, SIZE), Ragged.of([5]), *kernels(4))
