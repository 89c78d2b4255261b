"""The measured matrix-multiply rate."""

from __future__ import annotations

from itertools import count, pairwise

import pytest
import torch

from bothways.training import speed


def test_the_rate_of_real_products() -> None:
    assert speed.gemm_rate("cpu", torch.float32, seconds=0.05) > 0


@pytest.mark.parametrize(("seconds", "size"), [(0.0, 256), (0.4, 1536)])
def test_the_best_size_counts_and_sizes_stop_growing(monkeypatch: pytest.MonkeyPatch, seconds: float, size: int) -> None:
    """A product of side n that takes n seconds has a rate of 2 n^2: the largest size reached is the best."""
    ticks = count()
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(ticks) / 100)
    monkeypatch.setattr(speed, "_timed", lambda left, right: float(left.shape[0]))
    assert speed.gemm_rate("cpu", torch.float32, seconds) == 2.0 * size**2


def test_samples_are_few_enough_for_their_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two products of half a second a sample, for a hundredth of the time: a hundred seconds from the end of one to the next."""
    now = [0.0]

    def mm(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
        now[0] += 0.5

    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch, "mm", mm)
    sampler = speed.Sampler("cpu", share=0.01)
    rate, taken = 2 * 512**3 / 0.5, []
    for _ in range(1000):
        now[0] += 1.0
        if (sample := sampler.due()) is not None:
            assert sample == rate
            taken.append(now[0])
    assert taken[0] < 3
    assert {round(after - before, 6) for before, after in pairwise(taken)} == {101.0}


@pytest.mark.parametrize(
    ("name", "rate"),
    [("NVIDIA H200", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA L40S", 362e12), ("NVIDIA L4", 121e12), ("X", None)],
)
def test_the_makers_rate(monkeypatch: pytest.MonkeyPatch, name: str, rate: float | None) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert speed.peak_rate("cuda") == rate
    assert speed.peak_rate("cpu") is None
