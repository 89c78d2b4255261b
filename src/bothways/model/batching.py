"""Texts of any length through the encoder in batches without padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from bothways.encoder.encoder import Encoder
from bothways.ragged import Batch, Encoded

# Tokens of a batch. Activations of this many tokens stay in a CPU's cache; more gains nothing there.
CPU_TOKENS, GPU_TOKENS = 2048, 65536


@runtime_checkable
class Progress(Protocol):
    """Told of each finished batch: sequences and tokens."""

    def __call__(self, sequences: int, tokens: int) -> None: ...


def by_budget(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Sequence numbers, longest first, in batches of at most `budget` tokens (or one sequence).

    Equal lengths lie together, as the by-length attention likes them.
    """
    batch: list[int] = []
    tokens = 0
    for i in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        if batch and tokens + lengths[i] > budget:
            yield batch
            batch, tokens = [], 0
        batch.append(i)
        tokens += lengths[i]
    if batch:
        yield batch


@torch.inference_mode()
def run(
    encoder: Encoder,
    sequences: Sequence[np.ndarray],
    reduce: Callable[[Encoded, list[int]], Sequence[Tensor] | Tensor],
    types: Sequence[np.ndarray] | None = None,
    budget: int | None = None,
    progress: Progress | None = None,
    mark: Callable[[Batch], Batch] | None = None,
    keep: bool = False,
) -> list[Tensor]:
    """`reduce` of every sequence's hidden states, in the order given.

    Args:
        reduce: from an encoded batch and its sequence numbers, one tensor a sequence.
        types: token types of each sequence.
        budget: tokens of a batch.
        mark: from a batch to the one that is encoded, with its global tokens.
        keep: whether the encoded batch has every layer's output.
    """
    device = encoder.embedding.tokens.weight.device
    budget = budget or (GPU_TOKENS if device.type == "cuda" else CPU_TOKENS)
    out: list[Tensor | None] = [None] * len(sequences)
    for chosen in by_budget([encoder.config.taken(len(sequence)) for sequence in sequences], budget):
        batch = Batch.of([sequences[i] for i in chosen], None if types is None else [types[i] for i in chosen])
        batch = batch if mark is None else mark(batch)
        for i, result in zip(chosen, reduce(encoder(batch.to(device), keep=keep), chosen), strict=True):
            out[i] = result
        if progress is not None:
            progress(len(chosen), batch.ragged.tokens)
    return out  # type: ignore[return-value]
