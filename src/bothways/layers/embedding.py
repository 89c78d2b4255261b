"""Token ids to vectors."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from bothways.config import config
from bothways.layers.norm import Norm, build_norm
from bothways.layers.position import Learned, Position, Sinusoidal, sinusoidal_table
from bothways.layers.ranges import Dropout
from bothways.ragged import Batch, Ragged


@config
class Embedding:
    """What is summed into a token's first vector.

    Attributes:
        token_types: segments of sentence pairs, each with its own vector; 0 has none.
        position: positions added here; None where they act inside attention.
        norm: applied to the sum.
        size: width of the tables, which a linear map brings to the encoder's after the norm (ALBERT,
            arXiv 1909.11942); None: the encoder's width, and no such map.
    """

    token_types: NonNegativeInt = 0
    position: Position | None = None
    norm: Norm | None = None
    dropout: Dropout = 0.0
    size: PositiveInt | None = None


class TokenEmbedding(nn.Module):
    """The sum of a token's, its position's and its type's vectors, normalised.

    The vector of `filler` takes part, but learns nothing here.
    """

    def __init__(self, config: Embedding, vocab_size: int, size: int, max_length: int, filler: int | None = None) -> None:
        super().__init__()
        self.config = config
        inner = config.size or size
        self.tokens = nn.Embedding(vocab_size, inner, padding_idx=filler)
        learned = config.position if isinstance(config.position, Learned) else None
        self.positions = nn.Embedding(max_length + learned.offset, inner) if learned else None
        self.types = nn.Embedding(config.token_types, inner) if config.token_types else None
        self.norm = build_norm(config.norm, inner)
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(inner, size) if config.size else nn.Identity()

    def forward(self, batch: Batch, table: Float[Tensor, "rows inner"] | None = None) -> Float[Tensor, "tokens size"]:
        """`table`: that of tokens with others behind them, where there are ids of such; None: the tokens' own."""
        x = self.tokens(batch.ids) if table is None else F.embedding(batch.ids, table)
        if self.types is not None:
            # no types given means type 0 throughout: one row, added to all
            x = x + (self.types.weight[0] if batch.types is None else self.types(batch.types))
        if (places := self._places(batch.ragged)) is not None:
            x = x + places.to(x.dtype)
        return self.project(self.dropout(self.norm(x)))

    def places(self, ragged: Ragged) -> Float[Tensor, "tokens size"] | None:
        """The positions alone, as wide as the encoder; None where they act inside attention."""
        found = self._places(ragged)
        return None if found is None else self.project(found)

    def _places(self, ragged: Ragged) -> Float[Tensor, "tokens inner"] | None:
        if self.positions is not None and isinstance(self.config.position, Learned):
            return self.positions(ragged.positions + self.config.position.offset)
        if isinstance(self.config.position, Sinusoidal):
            return sinusoidal_table(ragged.positions, self.tokens.embedding_dim)
        return None

    def flops(self, tokens: int) -> float:
        """Matrix-multiply FLOPs of one forward pass over `tokens` tokens: looking up costs none."""
        return 2.0 * tokens * self.project.weight.numel() if isinstance(self.project, nn.Linear) else 0.0
