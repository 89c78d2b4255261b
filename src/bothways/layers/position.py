"""Where a token stands: positions added to the embedding, and rotary positions inside the score."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeInt
from torch import Tensor

from bothways.config import config
from bothways.layers.ranges import Positive


@config
class Learned:
    """A trained vector a position (BERT).

    `offset` rows stand before that of the first token: RoBERTa's table has two such rows.
    """

    type: Literal["learned"] = "learned"
    offset: NonNegativeInt = 0


@config
class Sinusoidal:
    """Fixed sines and cosines of falling frequency, side by side (arXiv 1706.03762)."""

    type: Literal["sinusoidal"] = "sinusoidal"


@config
class Rotary:
    """Queries and keys turn by an angle that grows with the position (arXiv 2104.09864)."""

    type: Literal["rotary"] = "rotary"
    theta: Positive = 10_000.0


Position = Annotated[Learned | Sinusoidal, Field(discriminator="type")]


def sinusoidal_table(positions: Int[Tensor, " tokens"], size: int) -> Float[Tensor, "tokens size"]:
    """Sine at even features, cosine at odd ones, of position / 10000^(2i/size)."""
    rates = torch.exp(torch.arange(0, size, 2, device=positions.device) * (-math.log(10_000.0) / size))
    angles = positions[:, None].float() * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :size]
