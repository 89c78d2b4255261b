"""NeoBERT, deep and narrow and long in training; and Cramming, a day on one device."""

from __future__ import annotations

from dataclasses import replace

from bothways.data.masking import NEOBERT, Masking
from bothways.data.packing import TokenBudget
from bothways.data.tokenizer_training import WordPiece
from bothways.families.modernbert import modernbert as modernbert_encoder
from bothways.families.neobert import neobert as neobert_encoder
from bothways.layers.heads import MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm
from bothways.recipes.recipe import LONGER, Budget, Shape, Size, Source, budget_of, divided, shape_of
from bothways.recipes.runs import Pretraining, Stage, Staged
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Cosine, Fraction, Hours, Linear, Steps, Trapezoidal
from bothways.training.settings import TrainingConfig

_NONE = Fraction(of=0.0)


def neobert(source: Source, budget: Budget | None, size: Size = "base") -> Staged:
    """NeoBERT in its two stages: 20 % masked, every one by [MASK]; 1,024 tokens a text, then 4,096.

    2 million tokens a step; 1,000,000 steps at lr 6e-4, by a cosine down to a tenth, and 50,000 more at that tenth
    (arXiv 2502.19587; the configuration in its repository says lr 1e-4 and a tenth of the weight decay). The paper's cosine
    ends after 900,000 steps, and its tokens count padding.
    """
    shape = shape_of(size, Shape(768, 28, 12, 3072, 30522, 1024, 16384, 128))
    encoder = neobert_encoder(
        shape.vocab_size, shape.hidden_size, shape.num_layers, shape.heads, shape.intermediate_size,
        max_length=4096 if size == "base" else shape.max_length * LONGER,
        initializer_range=shape.initializer_range,
    )  # fmt: skip
    first, second = divided(budget_of(budget, size, Steps(count=1_050_000)), (1_000_000, 50_000))
    optimizer = AdamW(lr=6e-4 if size == "base" else 2e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    base = Pretraining(
        family="neobert",
        encoder=encoder,
        head=MaskedLmHead(transform=None, tied=False),
        masking=NEOBERT,
        source=source,
        tokenizer=WordPiece(vocab_size=shape.vocab_size),
        batching=TokenBudget(tokens=shape.tokens),
        training=TrainingConfig(
            optimizer=optimizer,
            schedule=Cosine(warmup=Fraction(of=0.002 if size == "base" else 0.01), final=0.1),
            budget=first,
            accumulate=shape.accumulate,
            clip=1.0,
        ),
        max_length=shape.max_length,
    )
    tenth = replace(
        base.training,
        budget=second,
        optimizer=replace(optimizer, lr=optimizer.lr / 10),
        schedule=Trapezoidal(warmup=_NONE, decay=_NONE),
    )
    context = Stage(name="context", max_length=encoder.max_length, training=tenth, moments="kept")
    return Staged(base=base, stages=(Stage(name="general"), context))


def cramming(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """Cramming: as much as one device learns in a day; 25 % masked, no dropout, one triangle of the learning rate.

    16 layers of 768, 128 tokens a text, lr 1e-3, gradients cut at 0.5, 8,192 samples a step (arXiv 2212.14034). The rules leave
    the network free: this is ModernBERT's with the crammed one's shape and norms, all layers seeing everything. The crammed
    one adds scaled sines for positions where here they turn queries and keys, and has no layer before the vocabulary.
    """
    shape = shape_of(size, Shape(768, 16, 12, 3072, 32768, 128, 16384, 64))
    norm = LayerNorm(eps=1e-12)
    encoder = modernbert_encoder(
        shape.vocab_size,
        shape.hidden_size,
        shape.num_layers,
        shape.heads,
        shape.intermediate_size if size == "base" else shape.gated_size,
        max_length=shape.max_length,
        pattern=(True,),
        global_theta=10_000.0,
        norm=norm,
        initializer_range=shape.initializer_range,
    )
    return Pretraining(
        family="modernbert",
        encoder=encoder,
        head=MaskedLmHead(transform=Transform(bias=False, norm=norm)),
        masking=Masking(rate=0.25),
        source=source,
        tokenizer=WordPiece(vocab_size=shape.vocab_size),
        batching=TokenBudget(tokens=shape.tokens),
        training=TrainingConfig(
            optimizer=AdamW(lr=1e-3, betas=(0.9, 0.98), eps=1e-12, weight_decay=0.01),
            schedule=Linear(warmup=Fraction(of=0.5)),
            budget=budget or (Hours(hours=24.0) if size == "base" else Hours(hours=0.001)),
            accumulate=shape.accumulate,
            clip=0.5,
        ),
        max_length=shape.max_length,
    )
