"""The measured matrix-multiply rate."""

from __future__ import annotations

import pytest
import torch

from bothways.training import speed


def test_the_rate_of_real_products() -> None:
    assert speed.gemm_rate("cpu", torch.float32, seconds=0.05) > 0


@pytest.mark.parametrize(("seconds", "size"), [(0.0, 256), (0.4, 1536)])
def test_the_best_size_counts_and_sizes_stop_growing(monkeypatch: pytest.MonkeyPatch, seconds: float, size: int) -> None:
    """A product of side n that takes n seconds has a rate of 2 n^2: the largest size reached is the best."""
    monkeypatch.setattr(speed, "_timed", lambda left, right: float(left.shape[0]))
    assert speed.gemm_rate("cpu", torch.float32, seconds) == 2.0 * size**2
