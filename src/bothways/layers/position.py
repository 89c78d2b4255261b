"""Where a token stands: positions added to the embedding, and rotary positions inside the score."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from bothways.config import config
from bothways.errors import InputError
from bothways.layers.norm import Norm
from bothways.layers.ranges import Dropout, Positive
from bothways.layers.scaling import Scaling, scaled_frequencies
from bothways.ops.disentangled import Rows
from bothways.ops.rotary import rotary_table
from bothways.ragged import Ragged


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
    """Queries and keys turn by an angle that grows with the position (arXiv 2104.09864).

    Attributes:
        scaling: how the frequencies are changed for longer texts than those of pretraining; None: not at all.
    """

    type: Literal["rotary"] = "rotary"
    theta: Positive = 10_000.0
    scaling: Scaling | None = None

    def table(self, ragged: Ragged, size: int) -> tuple[Float[Tensor, "tokens half"], Float[Tensor, "tokens half"]]:
        """Cosine and sine of each token's angles, for heads of this size."""
        frequencies, factor = scaled_frequencies(self.scaling, size, self.theta, ragged.positions.device)
        return rotary_table(ragged.positions, ragged.longest, frequencies, factor)


@config
class Alibi:
    """Scores fall linearly with the distance, by a fixed slope a head, in both directions (arXiv 2108.12409; MosaicBERT)."""

    type: Literal["alibi"] = "alibi"


@config
class Bucketed:
    """A trained number a head for each range of distances, the same in all layers (T5, arXiv 1910.10683; MPNet).

    Attributes:
        max_distance: all that is further away shares one number.
        first_apart: where the first token looks, and where it is looked at, it is no distance that
            counts, but two numbers of its own (TUPE, arXiv 2006.15595; ERNIE-Gram).
    """

    type: Literal["bucketed"] = "bucketed"
    buckets: Annotated[int, Field(ge=4)] = 32
    max_distance: PositiveInt = 128
    first_apart: bool = False

    def __post_init__(self) -> None:
        if self.max_distance <= self.buckets // 4:
            raise InputError(f"Bucketed.max_distance: {self.buckets} buckets need more than {self.buckets // 4}")

    @property
    def rows(self) -> int:
        """Of the table. One bucket is left over by distances (0 is never ahead); the first token takes it and one more."""
        return self.buckets + self.first_apart


@config
class Disentangled:
    """Products of contents with a table of relative positions that all layers share (DeBERTa, arXiv 2006.03654).

    Attributes:
        content_to_position: whether queries meet the positions' keys.
        position_to_content: whether keys meet the positions' queries.
        max_distance: distances from here on share a row.
        buckets: rows on either side, of which the further ones stand for growing ranges up to `max_distance`
            (version 2); None: a row for each distance.
        shared: whether the queries and keys of positions come of the layer's own projections of contents, or of others.
        norm: applied to the table.
        dropout: of the table, in each layer.
    """

    type: Literal["disentangled"] = "disentangled"
    content_to_position: bool = True
    position_to_content: bool = True
    max_distance: PositiveInt = 512
    buckets: PositiveInt | None = None
    shared: bool = False
    norm: Norm | None = None
    dropout: Dropout = 0.0

    @property
    def rows(self) -> Rows:
        """Which row stands for a distance."""
        return Rows(self.buckets or self.max_distance, self.buckets, self.max_distance)

    @property
    def terms(self) -> int:
        """What scores are the sum of."""
        return 1 + self.content_to_position + self.position_to_content

    def scale(self, head_size: int) -> float:
        """The factor of all products: each term of the sum counts as a part of the features."""
        return 1 / math.sqrt(head_size * self.terms)

    def __post_init__(self) -> None:
        if self.buckets is not None and not 2 <= self.buckets < 2 * (self.max_distance - 1):
            most = 2 * (self.max_distance - 1)
            raise InputError(f"Disentangled.buckets: {self.buckets} should be at least 2 and less than {most}")


Position = Annotated[Learned | Sinusoidal, Field(discriminator="type")]
ScorePosition = Annotated[Rotary | Alibi | Bucketed | Disentangled, Field(discriminator="type")]


def sinusoidal_table(positions: Int[Tensor, " tokens"], size: int) -> Float[Tensor, "tokens size"]:
    """Sine at even features, cosine at odd ones, of position / 10000^(2i/size)."""
    rates = torch.exp(torch.arange(0, size, 2, device=positions.device) * (-math.log(10_000.0) / size))
    angles = positions[:, None].float() * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :size]
