"""Published runs in which masked tokens are not all: a text's vector beside them, or the next token before them."""

from __future__ import annotations

from dataclasses import replace

from bothways.data.masking import RETROMAE, Masking
from bothways.data.packing import TokenBudget
from bothways.data.tokenizer_training import ByteLevelBpe
from bothways.families.eurobert import eurobert
from bothways.layers.heads import MaskedLmHead
from bothways.objectives.auto_encoding import RetroMae
from bothways.recipes.classic import bert
from bothways.recipes.recipe import Budget, Shape, Size, Source, budget_of, divided, shape_of
from bothways.recipes.runs import Pretraining, Stage, Staged, TextVectors
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Fraction, Linear, Tokens, Trapezoidal
from bothways.training.settings import TrainingConfig

_BILLION = 1_000_000_000


def retromae(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """RetroMAE: BERT whose first token has to know the text, for one layer gets all of it back from that and little else.

    30 % masked for the encoder, in whole words, half of each token's view for the decoder; 256 samples of 512 tokens a step, lr
    1e-4 after a warm-up of a tenth (arXiv 2205.12035 and its script). The paper begins with BERT's weights (`--from MODEL`
    does) and goes through BERT's text eight times, which is taken for 35 billion tokens here. Its script hides whole words
    from the decoder, too, by 256 draws for the tokens of a text; here each token has a draw of its own, of tokens. The model
    that is saved takes the first token's vector for the text's.
    """
    run = bert(source, budget_of(budget, size, Tokens(count=35 * _BILLION)), size)
    training = replace(
        run.training,
        optimizer=AdamW(lr=1e-4 if size == "base" else 1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
        schedule=Linear(warmup=Fraction(of=0.1)),
    )
    return replace(run, masking=RETROMAE, training=training, vectors=TextVectors(task=RetroMae()))


def biphasic(source: Source, budget: Budget | None, size: Size = "base") -> Staged:
    """Two phases on one network: the next token by causal attention, then masked tokens, read both ways.

    EuroBERT's network of 210M on 2,048 tokens a text with the rotary base 10,000, 100 billion tokens, 40 % masked
    (arXiv 2507.00994, which tries several divisions; here half and half). All else is ours, for no configuration was at hand:
    steps of 1 million tokens, lr 5e-4 in either phase after 2 % of it, down to nothing over its last tenth, AdamW's moments
    and decay (anew in the second phase), and the tokenizer.
    """
    shape = shape_of(size, Shape(768, 12, 12, 3072, 128_256, 2048, 16384, 64))
    encoder = eurobert(
        shape.vocab_size, shape.hidden_size, shape.num_layers, shape.heads, None,
        shape.intermediate_size if size == "base" else shape.gated_size, shape.max_length, theta=10_000.0,
        initializer_range=shape.initializer_range,
    )  # fmt: skip
    first, second = divided(budget_of(budget, size, Tokens(count=100 * _BILLION)), (1, 1))
    training = TrainingConfig(
        optimizer=AdamW(lr=5e-4 if size == "base" else 2e-3, betas=(0.9, 0.95), weight_decay=0.1),
        schedule=Trapezoidal(warmup=Fraction(of=0.02), decay=Fraction(of=0.1)),
        budget=first,
        accumulate=shape.accumulate,
    )
    base = Pretraining(
        family="eurobert",
        encoder=encoder,
        head=MaskedLmHead(transform=None, tied=False, bias=False),
        masking=Masking(rate=0.4),
        source=source,
        tokenizer=ByteLevelBpe(vocab_size=shape.vocab_size, specials="bert"),
        batching=TokenBudget(tokens=shape.tokens),
        training=training,
        max_length=shape.max_length,
    )
    causal = tuple(replace(layer, mixer=replace(layer.mixer, causal=True)) for layer in encoder.layers)  # type: ignore[call-arg]
    return Staged(
        base=base,
        stages=(
            Stage(name="causal", predicts="next", encoder=replace(encoder, layers=causal)),
            Stage(name="masked", predicts="masked", encoder=encoder, training=replace(training, budget=second)),
        ),
    )
