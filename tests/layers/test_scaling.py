"""Frequencies of scaled rotary positions: those of `transformers`, bit for bit, and a few by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from bothways.layers.position import Rotary
from bothways.layers.scaling import Linear, Llama3, Scaling, Yarn, attention_factor, scaled_frequencies
from bothways.ragged import Ragged

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
WAYS: tuple[tuple[dict[str, Any], Scaling], ...] = (
    ({"rope_type": "linear", "factor": 3.0}, Linear(factor=3.0)),
    ({"rope_type": "llama3", "factor": 32.0, **_LLAMA3}, Llama3(factor=32.0, original_length=8192)),
    (_YARN, Yarn(factor=4.0, original_length=4096)),
    ({**_YARN, "factor": 1.0}, Yarn(factor=1.0, original_length=4096)),
    ({**_YARN, "truncate": False}, Yarn(factor=4.0, original_length=4096, truncate=False)),
    ({**_YARN, "attention_factor": 0.7}, Yarn(factor=4.0, original_length=4096, attention_factor=0.7)),
    ({**_YARN, "mscale": 0.7}, Yarn(factor=4.0, original_length=4096, mscale=0.7)),
    (
        {**_YARN, "mscale": 0.7, "mscale_all_dim": 1.3, "beta_fast": 16, "beta_slow": 2},
        Yarn(factor=4.0, original_length=4096, mscale=0.7, mscale_all_dim=1.3, beta_fast=16.0, beta_slow=2.0),
    ),
    # a ramp of no width
    ({**_YARN, "beta_fast": 1.0, "original_max_position_embeddings": 4}, Yarn(factor=4.0, original_length=4, beta_fast=1.0)),
)


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("size", [8, 64, 128])
@pytest.mark.parametrize(("published", "scaling"), WAYS, ids=str)
def test_they_are_those_of_transformers(published: dict[str, Any], scaling: Scaling, size: int, theta: float) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=2 * size,
        num_attention_heads=2,
        max_position_embeddings=16384,
        rope_parameters={**published, "rope_theta": theta},
    )
    expected, factor = ROPE_INIT_FUNCTIONS[published["rope_type"]](config)
    found, ours = scaled_frequencies(scaling, size, theta)
    assert torch.equal(found, expected)
    assert ours == pytest.approx(factor, rel=1e-15)


def test_linear_is_the_same_angle_at_a_position_so_many_times_as_far() -> None:
    near = Rotary(theta=100.0).table(Ragged.of([4]), 8)
    far = Rotary(theta=100.0, scaling=Linear(factor=4.0)).table(Ragged.of([13]), 8)
    for one, other in zip(near, far, strict=True):
        torch.testing.assert_close(one, other[::4])


def test_yarn_by_hand() -> None:
    """Fast features are kept, slow ones divided, and scores grow by the square of the factor."""
    found, factor = scaled_frequencies(Yarn(factor=4.0, original_length=4096), 64, 10_000.0)
    plain = 10_000.0 ** (-torch.arange(0, 64, 2) / 64)
    torch.testing.assert_close(found[:8], plain[:8])
    torch.testing.assert_close(found[-8:], plain[-8:] / 4)
    assert factor == pytest.approx(0.1 * math.log(4) + 1)
    cos, sin = Rotary(scaling=Yarn(factor=4.0, original_length=4096)).table(Ragged.of([3]), 64)
    torch.testing.assert_close(cos**2 + sin**2, torch.full_like(cos, factor**2))


def test_attention_factors() -> None:
    assert attention_factor(Yarn(factor=1.0, original_length=1)) == 1.0
    assert attention_factor(Yarn(factor=8.0, original_length=1, attention_factor=0.5)) == 0.5
    both = Yarn(factor=math.e, original_length=1, mscale=10.0, mscale_all_dim=5.0)
    assert attention_factor(both) == pytest.approx(2 / 1.5)


def test_llama3_by_hand() -> None:
    """Waves over 8192 tokens are divided by the factor, those under 2048 kept."""
    found, factor = scaled_frequencies(Llama3(factor=8.0, original_length=8192), 128, 500_000.0)
    plain = 500_000.0 ** (-torch.arange(0, 128, 2) / 128)
    waves = 2 * math.pi / plain
    torch.testing.assert_close(found[waves < 2048], plain[waves < 2048])
    torch.testing.assert_close(found[waves > 8192], plain[waves > 8192] / 8)
    between = found[(waves >= 2048) & (waves <= 8192)] / plain[(waves >= 2048) & (waves <= 8192)]
    assert ((between > 1 / 8) & (between < 1)).all()
    assert factor == 1.0


def test_frequencies_are_made_where_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made on the CPU and copied."""
    plain, devices = torch.arange, []

    def arange(*args: Any, **options: Any) -> torch.Tensor:
        made = plain(*args, **options)
        devices.append(made.device.type)
        return made

    monkeypatch.setattr(torch, "arange", arange)
    scaled_frequencies(Yarn(factor=4.0, original_length=64), 8, 1e4, torch.device("meta"))
    assert set(devices) == {"meta"}
