"""One vector a sequence out of packed token vectors."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bothways.ragged import Ragged


def segment_mean(x: Float[Tensor, "tokens size"], ragged: Ragged) -> Float[Tensor, "sequences size"]:
    """The mean of each sequence's rows; zeros for an empty sequence.

    Summed sequence by sequence in a fixed order, so a vector does not depend on its batch.
    """
    sums = torch.segment_reduce(x, "sum", offsets=ragged.starts.long(), axis=0)
    return sums / ragged.starts.diff().clamp(min=1).unsqueeze(1)


def segment_max(x: Float[Tensor, "tokens size"], ragged: Ragged) -> Float[Tensor, "sequences size"]:
    """The largest value of each feature over each sequence's rows; zeros for an empty sequence."""
    largest = torch.segment_reduce(x, "max", offsets=ragged.starts.long(), axis=0)
    return torch.where(ragged.starts.diff().unsqueeze(1) > 0, largest, 0.0)


def segment_first(x: Float[Tensor, "tokens size"], ragged: Ragged) -> Float[Tensor, "sequences size"]:
    """The first row of each sequence; zeros for an empty sequence."""
    if ragged.tokens == 0:
        return x.new_zeros(ragged.sequences, x.shape[1])
    present = ragged.starts.diff().unsqueeze(1) > 0
    rows = ragged.starts[:-1].long().clamp(max=ragged.tokens - 1)
    return torch.where(present, x[rows], 0.0)


def segment_log_softmax(x: Float[Tensor, "tokens size"], ragged: Ragged) -> Float[Tensor, "tokens size"]:
    """Each feature's log-probabilities over the rows of each sequence."""
    rows = ragged.segments
    offsets = ragged.starts.long()
    x = x - torch.segment_reduce(x.detach(), "max", offsets=offsets, axis=0)[rows]
    return x - torch.segment_reduce(x.exp(), "sum", offsets=offsets, axis=0).log()[rows]


def segment_argmax(x: Float[Tensor, " tokens"], ragged: Ragged) -> Int[Tensor, " sequences"]:
    """The row of each sequence's largest value, the first of equal ones; for an empty sequence, the number of all rows."""
    rows = ragged.segments
    largest = torch.segment_reduce(x.unsqueeze(1), "max", offsets=ragged.starts.long(), axis=0).squeeze(1)
    numbers = torch.arange(ragged.tokens, device=x.device)
    candidates = numbers.masked_fill(x != largest[rows], ragged.tokens)
    return numbers.new_full((ragged.sequences,), ragged.tokens).scatter_reduce(0, rows, candidates, "amin")
