"""Our side of the tests: tiny encoders of odd sizes, and random weights large enough to tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder
from bothways.families.bert import bert
from bothways.families.deberta import deberta
from bothways.families.deberta_v2 import CONVOLUTION, deberta_v2
from bothways.families.modernbert import modernbert
from bothways.families.neobert import neobert
from bothways.layers.norm import LayerNorm
from bothways.layers.position import Disentangled
from bothways.ragged import Batch, Ragged

# Odd sizes, so that a transposed or mistaken axis does not fit by accident.
VOCAB, SIZE, LAYERS, HEADS, INNER, LONGEST, WINDOW = 101, 24, 5, 3, 20, 256, 4
_SIZES: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": SIZE, "num_layers": LAYERS, "heads": HEADS}
_BUCKETS = Disentangled(max_distance=12, buckets=8, shared=True, norm=LayerNorm())

CONFIGS: dict[str, EncoderConfig] = {
    "bert": bert(**_SIZES, intermediate_size=INNER, max_length=LONGEST, dropout=0.0, attention_dropout=0.0),
    "modernbert": modernbert(**_SIZES, intermediate_size=INNER, max_length=LONGEST, window=WINDOW),
    "neobert": neobert(**_SIZES, intermediate_size=30, max_length=LONGEST),
    "deberta": deberta(**_SIZES, intermediate_size=INNER, max_length=LONGEST, position=Disentangled(max_distance=7)),
    "deberta-v2": deberta_v2(**_SIZES, intermediate_size=INNER, max_length=LONGEST, position=_BUCKETS, convolution=CONVOLUTION),
}

# Lengths of the sequences of a packed batch; empty ones are empty slots.
lengths_lists = st.lists(st.integers(0, 14), min_size=1, max_size=6)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter, biases and norms included, so large that attention is far from uniform.

    At the usual initialisation a wrong rotary base changes outputs by 4e-5; here by 3e-2. Much larger still, and
    attention saturates: float32 gradients of the reference itself become noise.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
            scale = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.2 * noise if scale else 0.2 * noise)
    return module


def tiny_encoder(name: str, seed: int = 0, layers: int = LAYERS) -> Encoder:
    """A randomised encoder of one of `CONFIGS`, in evaluation mode."""
    encoder = Encoder(replace(CONFIGS[name], num_layers=layers))
    randomise(encoder, seed)
    return encoder.eval()


def random_ids(lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    """Token ids from 5 up (the lower ones are special), one array a length."""
    generator = np.random.default_rng(seed)
    return [generator.integers(5, VOCAB, size=length) for length in lengths]


def random_batch(lengths: Sequence[int], seed: int = 0) -> Batch:
    return Batch.of(random_ids(lengths, seed))


@contextmanager
def entering(encoder: Encoder) -> Iterator[list[Tensor]]:
    """Collects the vectors that enter the first layer, for gradients with respect to them."""
    vectors: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        vectors.append(output)

    hook = encoder.embedding.register_forward_hook(keep)
    yield vectors
    hook.remove()


def rows_of(ragged: Ragged, sequence: int) -> slice:
    """The rows of one sequence."""
    return slice(ragged.offsets[sequence], ragged.offsets[sequence + 1])


def gap(ours: Tensor, theirs: Tensor, scale: Tensor | None = None) -> float:
    """The largest difference, relative to the largest value of `theirs` (or of `scale`)."""
    assert ours.shape == theirs.shape
    largest = (theirs if scale is None else scale).abs().max().item() if theirs.numel() else 1.0
    difference = (ours.detach().double() - theirs.detach().double()).abs().max().item() if theirs.numel() else 0.0
    return difference / largest if largest else difference
