"""Published pretraining runs, a function each: the paper's architecture, masking and optimiser.

`size` scales the architecture and the batch to the hardware: "base" is the paper's, "tiny" trains on a
laptop. What a size changes is only what must shrink; the decisions stay the paper's. None of them is the
paper's corpus: that is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bothways.data.masking import BERT, MODERNBERT, NEOBERT, ROBERTA
from bothways.data.mixture import Mixture, TokenFolder
from bothways.data.packing import TokenBudget
from bothways.data.source import Column, TextFiles
from bothways.data.tokenizer_training import ByteLevelBpe, WordPiece
from bothways.families.bert import bert as bert_encoder
from bothways.families.bert import masked_lm_head
from bothways.families.modernbert import modernbert as modernbert_encoder
from bothways.families.neobert import neobert as neobert_encoder
from bothways.families.roberta import roberta as roberta_encoder
from bothways.layers.heads import MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm
from bothways.recipes.runs import Pretraining
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Cosine, Fraction, Hours, Linear, Steps, Tokens, Trapezoidal
from bothways.training.settings import TrainingConfig

Size = Literal["tiny", "mini", "base"]
Budget = Steps | Tokens | Hours
Source = TextFiles | Column | TokenFolder | Mixture


@dataclass(frozen=True)
class Shape:
    """What a size fixes: widths of the network, vocabulary, sample length, tokens of a micro-batch and micro-batches a step."""

    hidden_size: int
    num_layers: int
    heads: int
    intermediate_size: int
    vocab_size: int
    max_length: int
    tokens: int
    accumulate: int = 1


_SHAPES: dict[Size, Shape] = {
    "tiny": Shape(128, 4, 4, 512, 8192, 128, 2048),
    "mini": Shape(256, 6, 4, 1024, 16384, 256, 4096),
}


def _initializer_range(shape: Shape) -> float:
    """0.02 as published, for width 768; a narrower network needs larger weights for sums of the same size.

    At width 128 this is what takes a run off the plateau of word frequencies: docs/log.md has the figures.
    """
    return 0.02 * math.sqrt(768 / shape.hidden_size)


def bert(source: Source, budget: Budget, size: Size = "base") -> Pretraining:
    """BERT's masked language modelling (arXiv 1810.04805), without the next-sentence task."""
    shape = _SHAPES.get(size, Shape(768, 12, 12, 3072, 30522, 512, 16384, 8))
    encoder = bert_encoder(
        shape.vocab_size, shape.hidden_size, shape.num_layers, shape.heads, shape.intermediate_size, shape.max_length,
        initializer_range=_initializer_range(shape),
    )  # fmt: skip
    return Pretraining(
        family="bert",
        encoder=encoder,
        head=masked_lm_head(encoder),
        masking=BERT,
        source=source,
        tokenizer=WordPiece(vocab_size=shape.vocab_size),
        batching=TokenBudget(tokens=shape.tokens),
        training=TrainingConfig(
            optimizer=AdamW(lr=1e-4 if size == "base" else 1e-3, betas=(0.9, 0.999), weight_decay=0.01),
            schedule=Linear(warmup=Fraction(of=0.01)),
            budget=budget,
            accumulate=shape.accumulate,
            clip=1.0,
        ),
        max_length=shape.max_length,
    )


def roberta(source: Source, budget: Budget, size: Size = "base") -> Pretraining:
    """RoBERTa (arXiv 1907.11692): byte-level pieces, dynamic masks over all tokens, no clipping."""
    shape = _SHAPES.get(size, Shape(768, 12, 12, 3072, 50265, 512, 16384, 64))
    encoder = roberta_encoder(
        shape.vocab_size, shape.hidden_size, shape.num_layers, shape.heads, shape.intermediate_size, shape.max_length,
        initializer_range=_initializer_range(shape),
    )  # fmt: skip
    return Pretraining(
        family="roberta",
        encoder=encoder,
        head=masked_lm_head(encoder),
        masking=ROBERTA,
        source=source,
        tokenizer=ByteLevelBpe(vocab_size=shape.vocab_size),
        batching=TokenBudget(tokens=shape.tokens),
        training=TrainingConfig(
            optimizer=AdamW(lr=5e-4 if size == "base" else 1e-3, betas=(0.9, 0.98), weight_decay=0.01),
            schedule=Linear(warmup=Fraction(of=0.06)),
            budget=budget,
            accumulate=shape.accumulate,
            clip=None,
        ),
        max_length=shape.max_length,
    )


def modernbert(source: Source, budget: Budget, size: Size = "base") -> Pretraining:
    """ModernBERT's first stage (arXiv 2412.13663), on AdamW: 30 % masked, attention-output dropout 0.1, trapezoidal."""
    shape = _SHAPES.get(size, Shape(768, 22, 12, 1152, 50368, 1024, 16384, 48))
    encoder = modernbert_encoder(
        shape.vocab_size,
        shape.hidden_size,
        shape.num_layers,
        shape.heads,
        shape.intermediate_size if size == "base" else shape.intermediate_size * 3 // 8,
        max_length=8192 if size == "base" else shape.max_length,
        global_theta=10_000.0,
        initializer_range=_initializer_range(shape),
    )
    norm = encoder.final_norm
    assert isinstance(norm, LayerNorm)
    return Pretraining(
        family="modernbert",
        encoder=encoder,
        head=MaskedLmHead(transform=Transform(bias=False, norm=norm)),
        masking=MODERNBERT,
        source=source,
        tokenizer=ByteLevelBpe(vocab_size=shape.vocab_size, specials="bert"),
        batching=TokenBudget(tokens=shape.tokens),
        training=TrainingConfig(
            optimizer=AdamW(lr=8e-4 if size == "base" else 2e-3, betas=(0.9, 0.98), weight_decay=1e-5),
            schedule=Trapezoidal(warmup=Fraction(of=0.03), decay=Fraction(of=0.3), final=0.001),
            budget=budget,
            accumulate=shape.accumulate,
            clip=None if size == "base" else 1.0,
        ),
        max_length=shape.max_length,
    )


def neobert(source: Source, budget: Budget, size: Size = "base") -> Pretraining:
    """NeoBERT (arXiv 2502.19587): 20 % masked, every one by [MASK]; cosine to a tenth."""
    shape = _SHAPES.get(size, Shape(768, 28, 12, 3072, 30522, 1024, 16384, 128))
    encoder = neobert_encoder(
        shape.vocab_size, shape.hidden_size, shape.num_layers, shape.heads, shape.intermediate_size,
        max_length=4096 if size == "base" else shape.max_length,
        initializer_range=_initializer_range(shape),
    )  # fmt: skip
    return Pretraining(
        family="neobert",
        encoder=encoder,
        head=MaskedLmHead(transform=None, tied=False),
        masking=NEOBERT,
        source=source,
        tokenizer=WordPiece(vocab_size=shape.vocab_size),
        batching=TokenBudget(tokens=shape.tokens),
        training=TrainingConfig(
            optimizer=AdamW(lr=6e-4 if size == "base" else 2e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1),
            schedule=Cosine(warmup=Fraction(of=0.01), final=0.1),
            budget=budget,
            accumulate=shape.accumulate,
            clip=1.0,
        ),
        max_length=shape.max_length,
    )


RECIPES: dict[str, Callable[[Source, Budget, Size], Pretraining]] = {
    one.__name__: one for one in (bert, roberta, modernbert, neobert)
}
