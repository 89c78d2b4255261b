"""Rotary positions for longer texts than a model was trained on: frequencies changed, and kept so by the config.

Each way gives the frequencies that `transformers` computes for it, in float32.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor

from bothways.config import config
from bothways.layers.ranges import Positive
from bothways.ops.rotary import rotary_frequencies


@config
class Linear:
    """Positions are divided by `factor` (position interpolation, arXiv 2306.15595)."""

    type: Literal["linear"] = "linear"
    factor: Positive


@config
class Yarn:
    """Slow turns are divided by `factor`, fast ones kept, with a ramp between (YaRN, arXiv 2309.00071).

    Attributes:
        original_length: the longest text of pretraining, in tokens.
        beta_fast: features that turn at least so often over the original length are kept.
        beta_slow: features that turn at most so often are divided.
        attention_factor: of cosines and sines; None: 0.1 ln(factor) + 1, or from the two below.
        mscale: with `mscale_all_dim`, the attention factor is the ratio of 0.1 m ln(factor) + 1 for the two m.
        mscale_all_dim: the second of the two; alone, either says nothing.
        truncate: whether the ramp begins and ends at whole features.
    """

    type: Literal["yarn"] = "yarn"
    factor: Positive
    original_length: PositiveInt
    beta_fast: Positive = 32.0
    beta_slow: Positive = 1.0
    attention_factor: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    mscale: Positive | None = None
    mscale_all_dim: Positive | None = None
    truncate: bool = True


@config
class Llama3:
    """Frequencies of few turns over the original length are divided by `factor` (Llama 3.1, arXiv 2407.21783).

    Attributes:
        original_length: the longest text of pretraining, in tokens.
        low: turns over the original length, up to which a frequency is divided.
        high: turns from which it is kept; between the two it is interpolated.
    """

    type: Literal["llama3"] = "llama3"
    factor: Positive
    original_length: PositiveInt
    low: Positive = 1.0
    high: Positive = 4.0


Scaling = Annotated[Linear | Yarn | Llama3, Field(discriminator="type")]


def scaled_frequencies(
    scaling: Linear | Yarn | Llama3 | None, size: int, theta: float, device: torch.device | None = None
) -> tuple[Float[Tensor, " half"], float]:
    """Radians a position for each pair of features, and the factor of cosines and sines."""
    plain = rotary_frequencies(size, theta, device)
    match scaling:
        case None:
            return plain, 1.0
        case Linear():
            return plain / scaling.factor, 1.0
        case Llama3():
            return _llama3(scaling, plain), 1.0
        case Yarn():
            kept = 1 - _ramp(scaling, size, theta, plain.device)
            slow = rotary_frequencies(size, theta, device, scaling.factor)
            return slow * (1 - kept) + plain * kept, attention_factor(scaling)


def attention_factor(scaling: Yarn) -> float:
    """What cosines and sines are multiplied by."""

    def grown(mscale: float) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * mscale * math.log(scaling.factor) + 1.0

    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale is not None and scaling.mscale_all_dim is not None:
        return grown(scaling.mscale) / grown(scaling.mscale_all_dim)
    return grown(1.0)


def _ramp(scaling: Yarn, size: int, theta: float, device: torch.device) -> Float[Tensor, " half"]:
    """How far each pair of features is divided: 0 for the fast ones, 1 for the slow ones."""

    def feature(turns: float) -> float:
        """The feature that turns so often over the original length."""
        return size * math.log(scaling.original_length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = feature(scaling.beta_fast), feature(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    # a ramp of no width would divide by zero
    width = high - low if high != low else 0.001
    return ((torch.arange(size // 2, dtype=torch.float32, device=device) - low) / width).clamp(0, 1)


def _llama3(scaling: Llama3, plain: Float[Tensor, " half"]) -> Float[Tensor, " half"]:
    waves = 2 * math.pi / plain
    share = (scaling.original_length / waves - scaling.low) / (scaling.high - scaling.low)
    between = (1 - share) * plain / scaling.factor + share * plain
    long, short = waves > scaling.original_length / scaling.low, waves < scaling.original_length / scaling.high
    return torch.where(long, plain / scaling.factor, torch.where(short, plain, between))
