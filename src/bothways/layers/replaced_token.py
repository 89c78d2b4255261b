"""Was this token put in place of another? The head of ELECTRA (arXiv 2003.10555) and of DeBERTa v3 (2111.09543)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bothways.config import config
from bothways.layers.heads import Transform, TransformLayer
from bothways.layers.norm import Norm, build_norm
from bothways.ops.segment import segment_first
from bothways.ragged import Ragged


@config
class ReplacedTokenHead:
    """Tells replaced tokens from those of the text.

    Attributes:
        beside_first: the norm of the sum of a token and its sequence's first one, which is read in the token's place
            (DeBERTa v3); None: the token is read alone (ELECTRA).
        transform: what comes before the one output.
    """

    beside_first: Norm | None = None
    transform: Transform = Transform()


class ReplacedToken(nn.Module):
    """A logit for each token: above 0 where it is more likely a replaced one."""

    def __init__(self, config: ReplacedTokenHead, size: int) -> None:
        super().__init__()
        self.config = config
        self.norm = build_norm(config.beside_first, size)
        self.transform = TransformLayer(config.transform, size)
        self.out = nn.Linear(size, 1)

    def forward(self, hidden: Float[Tensor, "tokens size"], ragged: Ragged) -> Float[Tensor, " tokens"]:
        if self.config.beside_first is not None:
            hidden = self.norm(segment_first(hidden, ragged)[ragged.segments] + hidden)
        return self.out(self.transform(hidden)).squeeze(-1)

    def flops(self, tokens: int) -> float:
        """Matrix-multiply FLOPs of one forward pass over `tokens` tokens."""
        return self.transform.flops(tokens) + 2.0 * tokens * self.out.weight.numel()
