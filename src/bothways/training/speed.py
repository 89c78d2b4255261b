"""What this machine can do: its matrix-multiply rate, measured."""

from __future__ import annotations

import time

import torch

SIZES = {"cpu": (256, 512, 1024, 1536), "cuda": (2048, 4096, 8192)}


def gemm_rate(device: torch.device | str, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """The best rate of square matrix products, in FLOP/s, found in about `seconds`.

    The sizes grow, and stop growing once the time is spent: a dtype that a machine only emulates
    (bf16 on most CPUs) is measured on small matrices.
    """
    device = torch.device(device)
    sizes = SIZES[device.type]
    best, end = 0.0, time.perf_counter() + seconds
    for number, size in enumerate(sizes, start=1):
        until = end - seconds * (1 - number / len(sizes))
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        _timed(left, right)  # the first call chooses a kernel
        while (now := time.perf_counter()) < until or best == 0.0:
            best = max(best, 2 * size**3 / _timed(left, right))
        if now > end:
            break
    return best


def _timed(left: torch.Tensor, right: torch.Tensor) -> float:
    _settle(left.device)
    begin = time.perf_counter()
    torch.mm(left, right)
    _settle(left.device)
    return time.perf_counter() - begin


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
