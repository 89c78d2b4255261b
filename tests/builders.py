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
from bothways.families.albert import albert
from bothways.families.bert import bert
from bothways.families.deberta import deberta
from bothways.families.deberta_v2 import CONVOLUTION, deberta_v2
from bothways.families.ernie_gram import ernie_gram
from bothways.families.llama import llama
from bothways.families.longformer import longformer
from bothways.families.m2bert import m2bert
from bothways.families.modernbert import modernbert
from bothways.families.mosaicbert import mosaicbert
from bothways.families.mpnet import mpnet
from bothways.families.neobert import neobert
from bothways.layers.norm import LayerNorm, RmsNorm
from bothways.layers.position import Alibi, Disentangled, Rotary
from bothways.layers.scaling import Yarn
from bothways.ragged import Batch, Ragged

# Odd sizes, so that a transposed or mistaken axis does not fit by accident.
VOCAB, SIZE, LAYERS, HEADS, INNER, LONGEST, WINDOW = 101, 24, 5, 3, 20, 256, 4
_YARN = Rotary(theta=50.0, scaling=Yarn(factor=4.0, original_length=64, beta_fast=8.0, beta_slow=0.5))
_SIZES: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": SIZE, "num_layers": LAYERS, "heads": HEADS}
_BUCKETS = Disentangled(max_distance=12, buckets=8, shared=True, norm=LayerNorm())

CONFIGS: dict[str, EncoderConfig] = {
    "bert": bert(**_SIZES, intermediate_size=INNER, max_length=LONGEST, dropout=0.0, attention_dropout=0.0),
    "albert": albert(**_SIZES, embedding_size=9, intermediate_size=INNER, max_length=LONGEST, groups=2),
    "modernbert": modernbert(**_SIZES, intermediate_size=INNER, max_length=LONGEST, window=WINDOW),
    "neobert": neobert(**_SIZES, intermediate_size=30, max_length=LONGEST),
    "mpnet": mpnet(**_SIZES, intermediate_size=INNER, max_length=LONGEST, dropout=0.0, attention_dropout=0.0),
    "ernie_gram": ernie_gram(**_SIZES, intermediate_size=INNER, max_length=LONGEST, dropout=0.0, attention_dropout=0.0),
    "mosaicbert": mosaicbert(**_SIZES, intermediate_size=INNER, max_length=LONGEST, dropout=0.0),
    "longformer": longformer(**_SIZES, intermediate_size=INNER, max_length=LONGEST, windows=2 * WINDOW),
    "m2_bert": m2bert(
        vocab_size=VOCAB,
        hidden_size=SIZE,
        num_layers=LAYERS,
        intermediate_size=INNER,
        max_length=LONGEST,
        width=16,
        dropout=0.0,
        filler=None,
    ),
    "llama": llama(**_SIZES, kv_heads=1, intermediate_size=INNER, max_length=LONGEST, position=_YARN),
    "deberta": deberta(**_SIZES, intermediate_size=INNER, max_length=LONGEST, position=Disentangled(max_distance=7)),
    "deberta-v2": deberta_v2(**_SIZES, intermediate_size=INNER, max_length=LONGEST, position=_BUCKETS, convolution=CONVOLUTION),
}


def mixed() -> EncoderConfig:
    """ModernBERT's layers with RMS norms, some of them with ALiBi: no published config says it."""
    base = CONFIGS["modernbert"]
    one, *others = (replace(layer, norm=RmsNorm(eps=1e-6)) for layer in base.layers)
    return replace(base, layers=(replace(one, mixer=replace(one.mixer, position=Alibi())), *others))


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
