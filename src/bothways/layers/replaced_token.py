"""The head of ELECTRA's discriminator (arXiv 2003.10555): was this token put in place of another?"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bothways.config import config
from bothways.layers.heads import Transform, TransformLayer


@config
class ReplacedTokenHead:
    """Tells replaced tokens from those of the text.

    Attributes:
        transform: what comes before the one output.
    """

    transform: Transform = Transform()


class ReplacedToken(nn.Module):
    """A logit for each token: above 0 where it is more likely a replaced one."""

    def __init__(self, config: ReplacedTokenHead, size: int) -> None:
        super().__init__()
        self.config = config
        self.transform = TransformLayer(config.transform, size)
        self.out = nn.Linear(size, 1)

    def forward(self, hidden: Float[Tensor, "tokens size"]) -> Float[Tensor, " tokens"]:
        return self.out(self.transform(hidden)).squeeze(-1)
