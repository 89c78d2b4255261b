"""N-grams behind a vocabulary: rows of their own, which are read and predicted in pretraining alone."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bothways.layers.heads import MaskedLm
from bothways.layers.shifted import ShiftedEmbedding
from bothways.ops.cross_entropy import See, linear_cross_entropy


class NGramTable(nn.Module):
    """What a masked-language head and an embedding lack to know n-grams as they know tokens (arXiv 2010.12148).

    It borrows the head's transform and the table of tokens, and owns what is not saved with a model: a row and a bias for each
    n-gram, and the `symbols`, which are shown in an n-gram's first, second, ... place where its tokens are predicted.
    """

    def __init__(self, count: int, width: int, symbols: int = 0, bias: bool = True) -> None:
        super().__init__()
        self.rows: nn.Embedding | ShiftedEmbedding = nn.Embedding(count, width)
        self.symbols = nn.Embedding(symbols, width) if symbols else None
        self.bias = nn.Parameter(torch.zeros(count)) if bias else None

    def table(self, tokens: Float[Tensor, "vocab width"]) -> Float[Tensor, "rows width"]:
        """Of all that can be read: tokens, n-grams, symbols."""
        symbols = () if self.symbols is None else (self.symbols.weight,)
        return torch.cat((tokens, self.rows.weight, *symbols))

    def loss(
        self,
        head: MaskedLm,
        hidden: Float[Tensor, "rows size"],
        tokens: Float[Tensor, "vocab width"],
        labels: Int[Tensor, " rows"],
        see: See | None = None,
    ) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
        """As `MaskedLm.loss`, over tokens and n-grams together."""
        weight = torch.cat((head.weight(tokens), self.rows.weight))
        bias = None if head.bias is None or self.bias is None else torch.cat((head.bias, self.bias))
        return linear_cross_entropy(head.transform(hidden), weight, bias, labels, see)

    def flops(self, rows: int) -> float:
        """Matrix-multiply FLOPs of the n-grams' logits of `rows` rows, beside those of the head."""
        return 2.0 * rows * self.rows.weight.numel()
