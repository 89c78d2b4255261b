"""Golden values of relative positions."""

from __future__ import annotations

import torch

from bothways.ops.relative import alibi_slopes, relative_buckets


def test_the_slopes_of_twelve_heads() -> None:
    """Those of eight heads, then every other one of sixteen (the published MosaicBERT list)."""
    eight = [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]
    torch.testing.assert_close(torch.tensor(alibi_slopes(12)), torch.tensor([*eight, 0.707107, 0.353553, 0.176777, 0.088388]))
    assert alibi_slopes(8) == eight


def test_the_buckets_of_t5() -> None:
    """Worked out by hand for 32 buckets up to 128: eight distances each, then powers of 16^(1/8); keys ahead from 16 up."""
    distances = [0, 1, 7, 8, 11, 12, 16, 23, 32, 64, 91, 127, 128, 5000]
    buckets = [0, 1, 7, 8, 8, 9, 10, 11, 12, 14, 15, 15, 15, 15]
    behind = relative_buckets(torch.tensor([-n for n in distances]), 32, 128).tolist()
    ahead = relative_buckets(torch.tensor(distances), 32, 128).tolist()
    assert behind == buckets
    assert ahead == [0, *(16 + bucket for bucket in buckets[1:])]
