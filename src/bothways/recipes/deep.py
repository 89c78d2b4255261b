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
from bothways.recipes.runs import ByLength, Pretraining, Stage, Staged
from bothways.training.optimizer import AdamW
from bothways.training.ramp import Linearly
from bothways.training.schedule import Cosine, Elapsed, Fraction, Hours, Steps, Trapezoidal, Triangle
from bothways.training.settings import TrainingConfig

_NONE = Fraction(of=0.0)


def neobert(source: Source, budget: Budget | None, size: Size = "base") -> Staged:
    """NeoBERT in its two stages: 20 % masked, every one by [MASK]; 1,024 tokens a text, then 4,096.

    2 million tokens a step; 1,000,000 steps at lr 6e-4, by a cosine down to a tenth, and 50,000 more at that tenth, of whose
    tokens 20 % are of any text, 40 % of texts from 1,024 tokens and 40 % from 2,048 (arXiv 2502.19587; the configuration in
    its repository says lr 1e-4 and a tenth of the weight decay). The paper's cosine ends after 900,000 steps, and its tokens
    count padding.
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
        optimizer=replace(optimizer, lr=6e-5 if size == "base" else 2e-4),
        schedule=Trapezoidal(warmup=_NONE, decay=_NONE),
    )
    longer = (1024, 2048) if size == "base" else (shape.max_length // 2, shape.max_length)
    parts = tuple(ByLength(at_least=least, weight=weight) for least, weight in zip((0, *longer), (20, 40, 40), strict=True))
    context = Stage(name="context", max_length=encoder.max_length, by_length=parts, training=tenth, moments="kept")
    return Staged(base=base, stages=(Stage(name="general"), context))


def cramming(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """Cramming: as much as one device learns in a day; 25 % masked, no dropout, one triangle of the learning rate.

    16 layers of 768, 128 tokens a text, lr 1e-3, gradients cut at 0.5, batches that grow to 8,192 samples at 60 % of the time
    (arXiv 2212.14034, `bert-o4` of its repository). Hours are hours of the clock: the learning rate, a quarter at first and
    highest at three quarters, follows it, so no two such runs are the same. The rules leave the network free: this is
    ModernBERT's with the crammed one's shape and norms, all layers seeing everything. The crammed one adds scaled sines for
    positions where here they turn queries and keys, and has no layer before the vocabulary.
    """
    shape = shape_of(size, Shape(768, 16, 12, 3072, 32768, 128, 16384, 64))
    norm = LayerNorm(eps=1e-12)
    # both halves of the gated MLP together are as wide as BERT's
    encoder = modernbert_encoder(
        shape.vocab_size,
        shape.hidden_size,
        shape.num_layers,
        shape.heads,
        shape.intermediate_size // 2 if size == "base" else shape.gated_size,
        max_length=shape.max_length,
        pattern=(True,),
        global_theta=10_000.0,
        norm=norm,
        initializer_range=shape.initializer_range,
    )
    if isinstance(budget, Hours):
        budget = Elapsed(hours=budget.hours)
    full = shape.accumulate if size == "base" else 4
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
            schedule=Triangle(peak=Fraction(of=0.75), start=0.25),
            budget=budget or Elapsed(hours=24.0 if size == "base" else 5 / 3600),
            ramp=Linearly(until=Fraction(of=0.6)),
            accumulate=full,
            clip=0.5,
        ),
        max_length=shape.max_length,
    )
