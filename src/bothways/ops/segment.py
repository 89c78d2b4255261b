"""One vector a sequence out of packed token vectors."""

from __future__ import annotations

import torch
from jaxtyping import Float
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
