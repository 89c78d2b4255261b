"""The head of DeBERTa v3's discriminator (arXiv 2111.09543): was this token put in place of another?"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bothways.config import config
from bothways.layers.heads import Transform, TransformLayer
from bothways.layers.norm import Norm, build_norm
from bothways.ops.segment import segment_first
from bothways.ragged import Ragged


@config
class DiscriminatorHead:
    """Tells replaced tokens from those of the text, each beside its sequence's first token.

    Attributes:
        norm: of the sum of a token and the first one.
        transform: what comes before the one output.
    """

    norm: Norm
    transform: Transform = Transform()


class Discriminator(nn.Module):
    """A logit for each token: above 0 where it is more likely a replaced one."""

    def __init__(self, config: DiscriminatorHead, size: int) -> None:
        super().__init__()
        self.config = config
        self.norm = build_norm(config.norm, size)
        self.transform = TransformLayer(config.transform, size)
        self.out = nn.Linear(size, 1)

    def forward(self, hidden: Float[Tensor, "tokens size"], ragged: Ragged) -> Float[Tensor, " tokens"]:
        first = segment_first(hidden, ragged)[ragged.segments]
        return self.out(self.transform(self.norm(first + hidden))).squeeze(-1)
