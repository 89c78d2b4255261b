"""Convolutions as long as their sequences, over packed sequences: one plain definition, and a backend by FFT that must equal it.

Feature by feature, out[t] = skip * x[t] + sum over s <= t of past[t - s] * x[s] + sum over s > t of future[s - t - 1] * x[s].
Each sequence is convolved alone, at its own length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bothways.ragged import Ragged


@dataclass(frozen=True)
class Convolution:
    """A way to compute it: from x [count, length, size] and kernels [length, size], without the skip."""

    name: str
    run: Callable[[Tensor, Tensor, Tensor | None], Tensor]


def long_convolution(
    x: Float[Tensor, "tokens size"],
    ragged: Ragged,
    past: Float[Tensor, "lags size"],
    future: Float[Tensor, "lags size"] | None,
    skip: Float[Tensor, " size"],
    backend: Convolution | None = None,
) -> Float[Tensor, "tokens size"]:
    """Every sequence's convolution with the same kernels.

    Args:
        past: the weight of the token 0, 1, 2, ... positions before.
        future: the weight of the token 1, 2, ... positions after; None sees none of them.
        skip: added to the weight of the token itself.
        backend: None is by FFT.

    Raises:
        ValueError: kernels shorter than the longest sequence.
    """
    if len(past) < max(ragged.lengths, default=0):
        raise ValueError(f"kernels of {len(past)} positions for a sequence of {max(ragged.lengths)}")
    lengths = sorted(ragged.lengths)
    if list(ragged.lengths) in (lengths, lengths[::-1]):
        return x * skip + _grouped(x, list(ragged.lengths), past, future, backend or FFT)
    # equal lengths are brought together, and back again
    _, rows = ragged.take(sorted(range(ragged.sequences), key=ragged.lengths.__getitem__))
    back = torch.empty_like(rows).scatter_(0, rows, torch.arange(len(rows), device=rows.device))
    return x * skip + _grouped(x[rows], lengths, past, future, backend or FFT)[back]


def _grouped(x: Tensor, lengths: list[int], past: Tensor, future: Tensor | None, backend: Convolution) -> Tensor:
    """One call for each length; equal lengths lie side by side."""
    counts = {length: lengths.count(length) for length in dict.fromkeys(lengths) if length}
    out = []
    for (length, count), rows in zip(counts.items(), x.split([n * count for n, count in counts.items()]), strict=True):
        ahead = None if future is None else future[:length]
        out.append(backend.run(rows.reshape(count, length, -1), past[:length], ahead).flatten(0, 1))
    if not out:
        return x * 0  # empty slots alone
    return torch.cat(out) if len(out) > 1 else out[0]


def _direct(x: Tensor, past: Tensor, future: Tensor | None) -> Tensor:
    """The definition: the weight of every pair of positions, as a matrix a feature."""
    length = x.shape[1]
    places = torch.arange(length, device=x.device)
    lag = places[:, None] - places[None, :]
    weights = past[lag.clamp(min=0)] * (lag >= 0)[..., None]
    if future is not None:
        weights = weights + future[(-lag - 1).clamp(min=0)] * (lag < 0)[..., None]
    return torch.einsum("tsd,nsd->ntd", weights, x)


def _fft(x: Tensor, past: Tensor, future: Tensor | None) -> Tensor:
    """A product of spectra twice as long as the sequence, so that nothing wraps around.

    Index -1 of the kernel, which is its last, is lag -1: the future lies there, reversed. Half precision is computed in float32.
    """
    length, dtype = x.shape[1], torch.promote_types(x.dtype, torch.float32)
    kernel = past if future is None else torch.cat((past, future.flip(0)))
    spectrum = torch.fft.rfft(kernel.to(dtype).T, n=2 * length)
    product = torch.fft.rfft(x.to(dtype).transpose(1, 2), n=2 * length) * spectrum
    return torch.fft.irfft(product, n=2 * length)[..., :length].transpose(1, 2).to(x.dtype)


FFT = Convolution("fft", _fft)
DIRECT = Convolution("direct", _direct)
