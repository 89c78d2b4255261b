"""What stands on an encoder: a vocabulary for masked tokens, classes for sequences, pooling."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from bothways.config import config
from bothways.errors import InputError
from bothways.layers.activation import Activation, activate
from bothways.layers.norm import Norm, build_norm
from bothways.layers.ranges import Dropout
from bothways.ops.cross_entropy import See, linear_cross_entropy
from bothways.ops.segment import segment_first, segment_max, segment_mean
from bothways.ragged import Batch, Ragged

Pooling = Literal["mean", "cls", "max"]
# "late": every token is classified, and a sequence has the mean of its tokens' logits
ClassifierPooling = Literal["mean", "cls", "max", "late"]


def pool(pooling: Pooling, hidden: Float[Tensor, "tokens size"], ragged: Ragged) -> Float[Tensor, "sequences size"]:
    """One vector a sequence: the mean of its tokens, its first token, or each feature's largest value."""
    match pooling:
        case "mean":
            return segment_mean(hidden, ragged)
        case "cls":
            return segment_first(hidden, ragged)
        case "max":
            return segment_max(hidden, ragged)


@config
class Transform:
    """act(dense(x)), then a norm where there is one: what stands before many output layers."""

    activation: Activation = "gelu"
    bias: bool = True
    norm: Norm | None = None


class TransformLayer(nn.Module):
    def __init__(self, config: Transform, size: int, out: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.dense = nn.Linear(size, out or size, bias=config.bias)
        self.norm = build_norm(config.norm, out or size)

    def forward(self, x: Float[Tensor, "rows size"]) -> Float[Tensor, "rows out"]:
        return self.norm(activate(self.config.activation, self.dense(x)))

    def flops(self, rows: int) -> float:
        """Matrix-multiply FLOPs of one forward pass over `rows` rows."""
        return 2.0 * rows * self.dense.weight.numel()


@config
class MaskedLmHead:
    """Predicts masked tokens.

    Attributes:
        transform: what comes before the vocabulary; None projects the hidden states as they are.
        tied: the vocabulary projection is the token embedding itself.
        bias: whether each token of the vocabulary has a bias.
    """

    transform: Transform | None = Transform()
    tied: bool = True
    bias: bool = True


class MaskedLm(nn.Module):
    """Vocabulary logits, or their summed cross-entropy, for given rows.

    A tied head owns no table: it is handed the embedding at each call, so nothing can come untied.
    `width` is that of the table, where it is not the encoder's.
    """

    def __init__(self, config: MaskedLmHead, size: int, vocab_size: int, width: int | None = None) -> None:
        super().__init__()
        if width not in (None, size) and config.transform is None:
            raise InputError(f"MaskedLmHead.transform: none, but hidden states of {size} features meet a table of {width}")
        self.config = config
        self.transform = TransformLayer(config.transform, size, width) if config.transform else nn.Identity()
        self.decoder = None if config.tied else nn.Embedding(vocab_size, width or size)
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if config.bias else None

    def forward(self, hidden: Float[Tensor, "rows size"], table: Float[Tensor, "vocab width"]) -> Float[Tensor, "rows vocab"]:
        return nn.functional.linear(self.transform(hidden), self.weight(table), self.bias)

    def loss(
        self,
        hidden: Float[Tensor, "rows size"],
        table: Float[Tensor, "vocab width"],
        labels: Int[Tensor, " rows"],
        see: See | None = None,
    ) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
        """Summed cross-entropy in nats over the rows, and how many are predicted right; `see` is shown the odds of all tokens."""
        return linear_cross_entropy(self.transform(hidden), self.weight(table), self.bias, labels, see)

    def weight(self, table: Float[Tensor, "vocab width"]) -> Float[Tensor, "vocab width"]:
        return table if self.decoder is None else self.decoder.weight

    def flops(self, rows: int, table: Float[Tensor, "vocab width"]) -> float:
        """Matrix-multiply FLOPs of the logits of `rows` rows."""
        transform = self.transform.flops(rows) if isinstance(self.transform, TransformLayer) else 0.0
        return transform + 2.0 * rows * self.weight(table).numel()


@config
class ClassifierHead:
    """Classes (or one regression value) for a sequence.

    Attributes:
        labels: number of outputs.
        pooling: how tokens become one vector; "late" classifies every token and takes the mean of the logits
            (EuroBERT, arXiv 2503.05500).
        transform: what comes before the output layer.
        dropout: before the output layer.
        input_dropout: before the transform (RoBERTa).
        global_first: the first token sees its whole sequence and is seen by all of it (Longformer).
    """

    labels: PositiveInt
    pooling: ClassifierPooling = "cls"
    transform: Transform | None = None
    dropout: Dropout = 0.0
    input_dropout: Dropout = 0.0
    global_first: bool = False


class Classifier(nn.Module):
    def __init__(self, config: ClassifierHead, size: int) -> None:
        super().__init__()
        self.config = config
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.transform = TransformLayer(config.transform, size) if config.transform else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(size, config.labels)

    def marked(self, batch: Batch) -> Batch:
        """The batch as this head wants it encoded: with a global first token, unless the batch says which are global."""
        return batch.with_first_global() if self.config.global_first and batch.global_mask is None else batch

    def forward(self, hidden: Float[Tensor, "tokens size"], ragged: Ragged) -> Float[Tensor, "sequences labels"]:
        if self.config.pooling == "late":
            return segment_mean(self._logits(hidden), ragged)
        return self._logits(pool(self.config.pooling, hidden, ragged))

    def _logits(self, x: Float[Tensor, "rows size"]) -> Float[Tensor, "rows labels"]:
        return self.out(self.dropout(self.transform(self.input_dropout(x))))

    def flops(self, ragged: Ragged) -> float:
        """Matrix-multiply FLOPs of the logits of these sequences: of each of their tokens, where pooling is late."""
        rows = ragged.tokens if self.config.pooling == "late" else ragged.sequences
        transform = self.transform.flops(rows) if isinstance(self.transform, TransformLayer) else 0.0
        return transform + 2.0 * rows * self.out.weight.numel()
