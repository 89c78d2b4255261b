"""Published runs that learn from replaced tokens: a small generator fills in masked ones, the model tells which it changed."""

from __future__ import annotations

from dataclasses import replace

from bothways.data.lexicon import CountedLexicon
from bothways.data.masking import DEBERTA_V3, ELECTRA
from bothways.data.ngram_masking import ERNIE_GRAM
from bothways.data.packing import TokenBudget
from bothways.data.tokenizer_training import Unigram, WordPiece
from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.encoder.generator import Narrowed
from bothways.families.bert import masked_lm_head
from bothways.families.deberta_v2 import deberta_v2
from bothways.families.electra import electra as electra_encoder
from bothways.families.ernie_gram import ernie_gram as ernie_gram_encoder
from bothways.layers.heads import Transform
from bothways.layers.replaced_token import ReplacedTokenHead
from bothways.objectives.ngram_lm import ExplicitNGrams
from bothways.objectives.replaced_token import ReplacedTokens
from bothways.objectives.sharing import DisentangledTables
from bothways.recipes.classic import bert
from bothways.recipes.modern import modernbert_short
from bothways.recipes.recipe import Budget, Shape, Size, Source, budget_of, shape_of
from bothways.recipes.runs import Pretraining
from bothways.training.optimizer import AdamW, BertAdam
from bothways.training.schedule import Fraction, Linear, Steps
from bothways.training.settings import TrainingConfig


def electra(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """ELECTRA: BERT learns to tell which tokens a generator, a third as wide, has put in the place of masked ones.

    256 samples of 512 tokens a step, 766,000 steps, lr 2e-4 after a warm-up of 10,000, 15 % chosen, of which 85 % show the mask
    and the rest themselves (arXiv 2003.10555). The generator shares the whole embedding; the discriminator's loss counts 50
    times. Its places are drawn with replacement, and where one was drawn twice its code writes the mean of two ids; here a
    place is drawn once, unless `masking.repeats` is "allowed". Its data has a tenth of single segments; here all are.
    """
    return _electra(source, budget, size, Shape(768, 12, 12, 3072, 30522, 512, 16384, 8), 1, 1 / 3, 2e-4, 766_000)


def electra_small(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """ELECTRA-small: 14M parameters, with tables half as wide as the layers; for one device and a few days.

    128 samples of 128 tokens a step, 1M steps, lr 5e-4, a generator a quarter as wide (arXiv 2003.10555); all else as
    `electra`. (The released small model was trained four times as long, with a generator of its own size.)
    """
    return _electra(source, budget, size, Shape(256, 12, 4, 1024, 30522, 128, 16384), 2, 1 / 4, 5e-4, 1_000_000)


def deberta_v3(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """DeBERTa v3: replaced tokens from a generator half as deep, of which the discriminator's loss never reaches the tables.

    256 samples of 512 tokens a step, lr 1e-4 after a warm-up of 10,000 of 1M steps (the released script; the paper, arXiv
    2111.09543, takes 8,192 samples), all chosen tokens masked. The discriminator's table is the generator's plus a difference
    of its own; its loss counts 50 times (10 in the released code). Masks fall one in every six tokens, and never on the last
    eleventh of a text. The generator predicts through an enhanced mask decoder. The script has a trainer for each network, and
    steps the generator's before the discriminator reads the tables; here one AdamW, which clips their gradients apart, moves
    both at once, so that the discriminator's tables are the difference on the generator's of one step earlier.
    """
    shape = shape_of(size, Shape(768, 12, 12, 3072, 128_100, 512, 16384, 8))
    encoder = deberta_v2(
        shape.vocab_size, shape.hidden_size, shape.num_layers, shape.heads, shape.intermediate_size, shape.max_length,
        initializer_range=shape.initializer_range,
    )  # fmt: skip
    norm = encoder.layer(0).norm
    return Pretraining(
        family="deberta-v2",
        encoder=encoder,
        head=masked_lm_head(encoder),
        masking=DEBERTA_V3,
        source=source,
        # the published pieces; the table has room for a hundred more
        tokenizer=Unigram(vocab_size=128_000 if size == "base" else shape.vocab_size, specials="bert"),
        batching=TokenBudget(tokens=shape.tokens),
        training=TrainingConfig(
            optimizer=AdamW(lr=1e-4 if size == "base" else 1e-3, betas=(0.9, 0.999)),
            schedule=Linear(warmup=Fraction(of=0.01)),
            budget=budget_of(budget, size, Steps(count=1_000_000)),
            accumulate=shape.accumulate,
        ),
        max_length=shape.max_length,
        replaced_tokens=ReplacedTokens(
            generator=Narrowed(width=1.0, depth=0.5),
            head=ReplacedTokenHead(beside_first=norm),
            sharing=DisentangledTables(),
            decoder=MaskDecoderHead(),
            clipping="apart",
        ),
    )


def modernbert_rtd(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """ModernBERT's network and first stage, learning from replaced tokens; a quarter of all tokens are chosen.

    Settings of ours, for nobody has published such a run: `modernbert_short` with ELECTRA's objective (arXiv 2003.10555), a
    generator a quarter as wide that shares the embedding, and the share of tokens that ELECTRA-large chose.
    """
    run = modernbert_short(source, budget, size)
    transform = run.head.transform
    assert transform is not None
    head = ReplacedTokenHead(transform=Transform(activation=transform.activation, bias=False))
    return replace(run, masking=replace(ELECTRA, rate=0.25), replaced_tokens=ReplacedTokens(head=head))


def _electra(
    source: Source, budget: Budget | None, size: Size, base: Shape, narrower: int, width: float, lr: float, steps: int
) -> Pretraining:
    """`narrower`: how many times the tables go into the width of the layers."""
    shape = shape_of(size, base)
    encoder = electra_encoder(
        shape.vocab_size, shape.hidden_size // narrower, shape.hidden_size, shape.num_layers, shape.heads,
        shape.intermediate_size, shape.max_length if size != "base" else 512, initializer_range=shape.initializer_range,
    )  # fmt: skip
    return Pretraining(
        family="electra",
        encoder=encoder,
        head=masked_lm_head(encoder, "gelu"),
        masking=ELECTRA,
        source=source,
        tokenizer=WordPiece(vocab_size=shape.vocab_size),
        batching=TokenBudget(tokens=shape.tokens),
        training=TrainingConfig(
            optimizer=BertAdam(lr=lr if size == "base" else 1e-3),
            schedule=Linear(warmup=Fraction(of=10_000 / steps)),
            budget=budget_of(budget, size, Steps(count=steps)),
            accumulate=shape.accumulate,
        ),
        max_length=shape.max_length,
        replaced_tokens=ReplacedTokens(generator=Narrowed(width=width)),
    )


def ernie_gram(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """ERNIE-Gram: n-grams are masked as one, filled in by a generator, and predicted as one and token by token.

    15 % of n-grams and single tokens are chosen, by a lexicon of 200,000 pairs and 100,000 triples of tokens; the n-grams that
    a generator draws stand in their place, and are told from those of the text as well (arXiv 2010.12148). No code of this
    pretraining was released: what the text leaves open is BERT's (256 samples of 512 tokens a step, 1M steps, lr 1e-4 after a
    warm-up of 10,000) and ELECTRA's (a generator a third as wide, detection 50 times). The encoder is the released one's.
    """
    shape = shape_of(size, Shape(768, 12, 12, 3072, 30522, 512, 16384, 8))
    encoder = ernie_gram_encoder(
        shape.vocab_size, shape.hidden_size, shape.num_layers, shape.heads, shape.intermediate_size, shape.max_length,
        initializer_range=shape.initializer_range,
    )  # fmt: skip
    counted = CountedLexicon()
    if size != "base":  # as many as tokens, and half as many, so that the text is cut by them about as often
        counted = CountedLexicon(sizes=(shape.vocab_size, shape.vocab_size // 2), at_least=2 if size == "toy" else 5)
    return replace(
        bert(source, budget, size),
        family="ernie_gram",
        encoder=encoder,
        head=masked_lm_head(encoder),
        masking=ERNIE_GRAM,
        replaced_tokens=ReplacedTokens(generator=Narrowed(width=1 / 3)),
        ngrams=ExplicitNGrams(lexicon=counted),
    )
