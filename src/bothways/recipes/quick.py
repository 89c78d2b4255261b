"""Our own run for hours rather than days of two CPU cores."""

from __future__ import annotations

from dataclasses import replace

from bothways.data.cooccurrence import Cooccurrence
from bothways.data.masking import Masking
from bothways.data.packing import TokenBudget
from bothways.data.tokenizer_training import WordPiece
from bothways.encoder.config import TruncatedNormal
from bothways.recipes.modern import modernbert_short
from bothways.recipes.recipe import Budget, Size, Source
from bothways.recipes.runs import Pretraining
from bothways.training.optimizer import AdamW, Muon
from bothways.training.schedule import Fraction, Hours, Trapezoidal

# Of a step; and the most tokens that are computed at once
_TEXTS, _AT_ONCE = 32, 16384


def speedrun(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """ModernBERT's network, made for little time: Muon, small steps, 40 % masked, no warm-up, word vectors to begin with.

    Hidden matrices are moved by Muon at 0.02, all else by AdamW at 1e-3; layers begin as the identity; 40 % is arXiv 2202.08005's
    rate; the learning rate falls by 1 - sqrt(t) over the last half. Steps are of 32 texts; an hour where no budget is given.
    Embeddings begin as word vectors of the text, and move at 3e-4: what these know of words serves fine-tuning better than what
    masked tokens alone teach in so short a time, and higher rates forget it.
    Hidden matrices decay at 0.5 (times the learning rate): without, what layers add to a token outgrows the token itself, and
    what is then learned on top is worse than from scratch. BERT's tenths of random and kept tokens keep states of tokens that
    are not masked telling. Chosen at the size "tiny": larger ones have the same settings, untuned (docs/log.md).
    """
    run = modernbert_short(source, budget or (None if size == "toy" else Hours(hours=1.0)), size)
    tokens = _TEXTS * run.max_length
    at_once = min(tokens, _AT_ONCE)
    training = replace(
        run.training,
        optimizer=Muon(
            lr=0.02,
            weight_decay=0.5,
            rest=AdamW(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0),
            embedding_lr=3e-4,
        ),
        schedule=Trapezoidal(warmup=Fraction(of=0.0), decay=Fraction(of=0.5), final=0.0),
        accumulate=tokens // at_once,
        clip=1.0,
    )
    return replace(
        run,
        encoder=replace(run.encoder, initialisation=TruncatedNormal(std=run.encoder.initialisation.spread, zero_residual=True)),
        masking=Masking(rate=0.4),
        embeddings=Cooccurrence(),
        tokenizer=WordPiece(vocab_size=run.encoder.vocab_size),
        batching=TokenBudget(tokens=at_once),
        training=training,
    )
