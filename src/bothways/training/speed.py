"""What this machine can do: its matrix-multiply rate, measured; and what some devices' makers state."""

from __future__ import annotations

import time

import torch

SIZES = {"cpu": (256, 512, 1024, 1536), "cuda": (2048, 4096, 8192)}
# Of one sample during a run: some milliseconds of a processor, or of a GPU. Many short ones say more than a few long ones
_SAMPLE = {"cpu": 512, "cuda": 4096}
# Dense bf16 products of tensor cores, FLOP/s, by a part of the device's name (makers' data sheets; no sparsity)
_PEAKS = {
    "B200": 2.25e15, "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L40": 181e12,
    "L4": 121e12, "A10G": 70e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip


class Sampler:
    """The rate of matrix products now and then, at the price of a small share of the time.

    The pause between samples follows from what all of them took, so that slow moments are sampled as often as quick ones.
    """

    def __init__(self, device: torch.device | str, dtype: torch.dtype = torch.float32, share: float = 0.008) -> None:
        size = _SAMPLE[torch.device(device).type]
        self._left, self._right, self._out = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(3))
        self._share, self._last, self._spent, self._taken = share, time.perf_counter(), 0.0, 0
        self._timed()  # the first call chooses a kernel

    def due(self) -> float | None:
        """A new sample in FLOP/s, where one is due: `share` of the time since the last one pays for it."""
        if self._taken and time.perf_counter() - self._last < self._spent / self._taken / self._share:
            return None
        return self.sample()

    def sample(self) -> float:
        """A new sample, now: of a product that follows another, whatever the caches and threads were busy with before."""
        first, seconds = self._timed(), self._timed()
        self._last, self._spent, self._taken = time.perf_counter(), self._spent + first + seconds, self._taken + 1
        return 2 * len(self._left) ** 3 / seconds

    def _timed(self) -> float:
        return _timed(self._left, self._right, self._out)


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


def peak_rate(device: torch.device | str) -> float | None:
    """What the device's maker states for products in bf16, in FLOP/s; None for one that is not known here."""
    device = torch.device(device)
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((rate for part, rate in _PEAKS.items() if part in name), None)


def _timed(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor | None = None) -> float:
    settle(left.device)
    begin = time.perf_counter()
    torch.mm(left, right, out=out)
    settle(left.device)
    return time.perf_counter() - begin


def settle(device: torch.device) -> None:
    """Wait until the device has done all that is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
