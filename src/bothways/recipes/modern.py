"""Published runs of ModernBERT's kind: general text, then long texts, then the best text while the learning rate falls.

The learning rate is one trapezoid over all stages: it rises in the first, stays, and falls in the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bothways.data.masking import MODERNBERT
from bothways.data.packing import TokenBudget
from bothways.data.tokenizer_training import ByteLevelBpe
from bothways.encoder.config import EncoderConfig
from bothways.families.modernbert import modernbert as encoder_of
from bothways.layers.attention import Attention
from bothways.layers.heads import MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm
from bothways.layers.position import Rotary
from bothways.recipes.recipe import LONGER, Budget, Shape, Size, Source, budget_of, divided, shape_of
from bothways.recipes.runs import Pretraining, Stage, Staged
from bothways.training.optimizer import AdamW, StableAdamW
from bothways.training.ramp import EqualUpdates, updates_within
from bothways.training.schedule import Fraction, Tokens, Trapezoidal
from bothways.training.settings import TrainingConfig

_NONE, _WHOLE = Fraction(of=0.0), Fraction(of=1.0)
_CONSTANT = Trapezoidal(warmup=_NONE, decay=_NONE)
_FALLING = Trapezoidal(warmup=_NONE, decay=_WHOLE, final=0.001)
_BILLION = 1_000_000_000
# 4,608 samples of 1,024 tokens a step, and as many tokens in 576 of 8,192; the paper's table lists fewer, which is per GPU
_BASE = Shape(768, 22, 12, 1152, 50368, 1024, 16384, 288)


def modernbert_short(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """ModernBERT's first stage alone, with the fall of the learning rate in it: for texts of a page.

    30 % masked, lr 8e-4, on AdamW (arXiv 2412.13663). Warm-up and fall take 3 and 30 % of the budget, which are ours: the
    paper's first stage ends high, and its fall is a stage of its own (`modernbert`).
    """
    schedule = Trapezoidal(warmup=Fraction(of=0.03), decay=Fraction(of=0.3), final=0.001)
    optimizer = AdamW(lr=_lr(size, 8e-4), betas=(0.9, 0.98), weight_decay=1e-5)
    shape = replace(_BASE, accumulate=48)
    papers = Tokens(count=1719 * _BILLION)
    return _first(source, budget_of(budget, size, papers), size, shape, optimizer, schedule, longer=1)


def modernbert(source: Source, budget: Budget | None, size: Size = "base") -> Staged:
    """ModernBERT in its three stages: 1,024 tokens a text, then 8,192, then the fall of the learning rate.

    1,719, 250 and 50 billion tokens, 30 % masked (15 % of held-out text), a tenth of what attention adds dropped out, batches
    that grow from 768 to 4,608 samples in the first 50 billion (arXiv 2412.13663). The first stage at lr 8e-4 after a
    warm-up of 3 billion tokens; the second at 3e-4, with rotary base 160,000 in the global layers; the last from there down
    by 1 - sqrt(t). Its text is a better one: `--text anneal=PATH`. The paper's model is the mean of the last checkpoint and
    the three best of that stage; here of its last four. Budgets in hours are divided by tokens, though a long text costs
    more of them.
    """
    lr = _lr(size, 8e-4)
    general, context, anneal = _stages(budget, size, (1719, 250, 50))
    rising = Trapezoidal(warmup=_warmup(size, 3, 1719), decay=_NONE)
    base = _ramped(_first(source, general, size, _BASE, _optimizer(lr, 1e-5), rising, dropout=0.1), 48, 50)
    ending = replace(_with(base, anneal, _optimizer(_lr(size, 3e-4, 3 / 8), 1e-5), _FALLING), keep=4)
    return Staged(
        base=base,
        stages=(
            Stage(name="general"),
            _longer(base, size, 8192, _with(base, context, _optimizer(_lr(size, 3e-4, 3 / 8), 1e-5), _CONSTANT)),
            Stage(name="anneal", moments="kept", training=ending, average=4),
        ),
    )  # fmt: skip


def ettin(source: Source, budget: Budget | None, size: Size = "base") -> Staged:
    """Ettin's smallest encoder (17M), in its three phases; the last masks 15 % where the others mask 30 %.

    1,700 billion tokens of 1,024 a text at lr 3e-3, with a warm-up of 4 billion and batches that grow from 144 to 4,608
    samples in the first 125; 250 of 7,999 down to a half of that rate by 1 - sqrt(t); 50 from there down to a twenty-fifth.
    Weight decay 3e-4, a tenth of what attention adds dropped out (arXiv 2507.11412; the files `very_tiny` of
    JHU-CLSP/ettin-encoder-vs-decoder, by which also the local layers have the rotary base 160,000 in the last phase, and
    10,000 before it).
    """
    lr = _lr(size, 3e-3)
    general, context, decay = _stages(budget, size, (1700, 250, 50))
    rising = Trapezoidal(warmup=_warmup(size, 4, 1700), decay=_NONE)
    shape = Shape(256, 7, 4, 384, 50368, 1024, 16384, 288)
    base = _ramped(_first(source, general, size, shape, _optimizer(lr, 3e-4), rising, 7999, dropout=0.1), 9, 125)
    # as many samples a step, of eight times the length
    samples = 2304 if size == "base" else base.training.accumulate
    halving = _with(base, context, _optimizer(lr, 3e-4), Trapezoidal(warmup=_NONE, decay=_WHOLE, final=0.5))
    ending = Trapezoidal(warmup=_NONE, decay=_WHOLE, final=0.04)
    ended = _with(base, decay, _optimizer(_lr(size, 1.5e-3, 1 / 2), 3e-4), ending)
    return Staged(
        base=base,
        stages=(
            Stage(name="general"),
            _longer(base, size, 7999, replace(halving, accumulate=samples)),
            Stage(
                name="decay", encoder=_thetas(base.encoder, 160_000.0, 160_000.0), masking=replace(MODERNBERT, rate=0.15),
                moments="kept", training=replace(ended, accumulate=samples),
            ),
        ),
    )  # fmt: skip


def rexbert(source: Source, budget: Budget | None, size: Size = "base") -> Staged:
    """RexBERT's three phases: general text, long texts, and the text of one domain, chosen from the rest.

    ModernBERT's network and 2,300 billion tokens (arXiv 2602.04605). How they are divided, each phase's rate and share of
    masks, and the rule of its "Guided MLM" are not published: the phases here are ModernBERT's, 7 to 2 to 1, and tokens
    are masked at random in all of them. The domain's text is the last phase's (`--text domain=PATH`).
    """
    lr = _lr(size, 8e-4)
    general, context, domain = _stages(budget, size, (1610, 460, 230))
    rising = Trapezoidal(warmup=_warmup(size, 3, 1610), decay=_NONE)
    base = _ramped(_first(source, general, size, _BASE, _optimizer(lr, 1e-5), rising, dropout=0.1), 48, 50)
    return Staged(
        base=base,
        stages=(
            Stage(name="general"),
            _longer(base, size, 8192, _with(base, context, _optimizer(lr, 1e-5), _CONSTANT)),
            Stage(name="domain", moments="kept", training=_with(base, domain, _optimizer(lr, 1e-5), _FALLING)),
        ),
    )  # fmt: skip


def _first(
    source: Source,
    budget: Budget,
    size: Size,
    base: Shape,
    optimizer: AdamW | StableAdamW,
    schedule: Trapezoidal,
    longest: int = 8192,
    dropout: float = 0.0,
    longer: int = LONGER,
) -> Pretraining:
    """The first stage: both rotary bases are 10,000.

    Args:
        longest: the longest text that the paper's network reads.
        dropout: of what attention adds.
        longer: how many times its first texts a smaller network reads at most.
    """
    shape = shape_of(size, base)
    encoder = encoder_of(
        shape.vocab_size,
        shape.hidden_size,
        shape.num_layers,
        shape.heads,
        shape.intermediate_size if size == "base" else shape.gated_size,
        max_length=longest if size == "base" else shape.max_length * longer,
        global_theta=10_000.0,
        initializer_range=shape.initializer_range,
    )
    norm = encoder.final_norm
    assert isinstance(norm, LayerNorm)
    return Pretraining(
        family="modernbert",
        encoder=_mixers(encoder, lambda mixer: replace(mixer, out_dropout=dropout)),
        head=MaskedLmHead(transform=Transform(bias=False, norm=norm)),
        masking=MODERNBERT,
        source=source,
        tokenizer=ByteLevelBpe(vocab_size=shape.vocab_size, specials="bert"),
        batching=TokenBudget(tokens=shape.tokens),
        training=TrainingConfig(
            optimizer=optimizer,
            schedule=schedule,
            budget=budget,
            accumulate=shape.accumulate,
            clip=None if size == "base" else 1.0,
        ),
        max_length=shape.max_length,
    )


def _longer(base: Pretraining, size: Size, length: int, training: TrainingConfig) -> Stage:
    """The stage that reads longer texts, with the rotary base 160,000 in the global layers."""
    return Stage(
        name="context",
        max_length=length if size == "base" else base.max_length * LONGER,
        encoder=_thetas(base.encoder, 160_000.0, 10_000.0),
        moments="kept",
        training=training,
    )


def _with(base: Pretraining, budget: Budget, optimizer: StableAdamW, schedule: Trapezoidal) -> TrainingConfig:
    """A later stage's training, all of it with the full batch."""
    return replace(base.training, budget=budget, optimizer=optimizer, schedule=schedule, ramp=None)


def _ramped(run: Pretraining, first: int, billions: int) -> Pretraining:
    """The first of several stages: batches grow from so many micro-batches within so many tokens, where they can grow."""
    full, run = run.training.accumulate, replace(run, held_out_rate=0.15)
    if full <= first:
        return run
    updates = updates_within(billions * _BILLION, run.batching.tokens, first, full)
    return replace(run, training=replace(run.training, ramp=EqualUpdates(first=first, updates=updates)))


def _optimizer(lr: float, decay: float) -> StableAdamW:
    """ModernBERT's; `decay` is what a step at the highest rate takes off a weight."""
    return StableAdamW(lr=lr, betas=(0.9, 0.98), weight_decay=decay, fully_decoupled=True)


def _lr(size: Size, papers: float, share: float = 1.0) -> float:
    """The paper's rate; of a smaller size, a share of ours."""
    return papers if size == "base" else 2e-3 * share


def _warmup(size: Size, billions: int, of: int) -> Fraction:
    return Fraction(of=billions / of if size == "base" else 0.03)


def _stages(budget: Budget | None, size: Size, billions: tuple[int, int, int]) -> list[Budget]:
    return divided(budget_of(budget, size, Tokens(count=sum(billions) * _BILLION)), billions)


def _thetas(encoder: EncoderConfig, wide: float, near: float) -> EncoderConfig:
    """The encoder with other rotary bases, of the layers that see everything and of those with a window."""
    return _mixers(encoder, lambda mixer: replace(mixer, position=Rotary(theta=wide if mixer.window is None else near)))


def _mixers(encoder: EncoderConfig, changed: Callable[[Attention], Attention]) -> EncoderConfig:
    layers = [replace(layer, mixer=changed(layer.mixer)) for layer in encoder.layers if isinstance(layer.mixer, Attention)]
    return replace(encoder, layers=tuple(layers))
