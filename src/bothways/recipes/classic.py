"""Published runs of BERT's and RoBERTa's kind: post-norm, one stage, texts of at most 512 tokens."""

from __future__ import annotations

from dataclasses import replace

from bothways.data.masking import ALBERT, BERT, ROBERTA, Masking
from bothways.data.packing import TokenBudget
from bothways.data.sentence_blocks import WholeSentences
from bothways.data.sentence_pairs import NextSentence, SentenceOrder
from bothways.data.tokenizer_training import ByteLevelBpe, Unigram, WordPiece
from bothways.families.albert import albert as albert_encoder
from bothways.families.bert import bert as bert_encoder
from bothways.families.bert import masked_lm_head
from bothways.families.mosaicbert import masked_lm_head as mosaic_head
from bothways.families.mosaicbert import mosaicbert as mosaicbert_encoder
from bothways.families.roberta import roberta as roberta_encoder
from bothways.layers.heads import ClassifierHead, Transform
from bothways.recipes.recipe import Budget, Shape, Size, Source, budget_of, shape_of
from bothways.recipes.runs import Pretraining, SentencePairs
from bothways.training.optimizer import AdamW, BertAdam, Lamb
from bothways.training.schedule import Cosine, Fraction, Linear, Steps
from bothways.training.settings import TrainingConfig


def bert(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """BERT's masked language modelling, without the next-sentence task.

    256 samples of 512 tokens a step, 1M steps, warm-up of 10,000, Adam without bias correction (arXiv 1810.04805). The paper
    reads 128 tokens a sample in the first 900,000 steps; and its code makes its masks once, ten times over, where here they
    are new in every epoch (`masking.copies=10` has its way).
    """
    shape = shape_of(size, Shape(768, 12, 12, 3072, 30522, 512, 16384, 8))
    encoder = bert_encoder(
        shape.vocab_size, shape.hidden_size, shape.num_layers, shape.heads, shape.intermediate_size, shape.max_length,
        initializer_range=shape.initializer_range,
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
            optimizer=BertAdam(lr=1e-4 if size == "base" else 1e-3),
            schedule=Linear(warmup=Fraction(of=0.01)),
            budget=budget_of(budget, size, Steps(count=1_000_000)),
            accumulate=shape.accumulate,
            clip=1.0,
        ),
        max_length=shape.max_length,
    )


def bert_next_sentence(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """BERT with both of its tasks: masked tokens, and whether the second part of a text follows the first.

    `bert`, on pairs of stretches of sentences as the published code makes them (arXiv 1810.04805): half random, those of a single
    sentence always, a tenth of the documents in short pairs, the text made into pairs ten times. Sentences are told by their
    final signs, where the paper's text has one a line.
    """
    return replace(bert(source, budget, size), pairs=SentencePairs(task=NextSentence()))


def albert(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """ALBERT: layers that are one module, a narrow embedding, masked tokens and the order of two parts of a text.

    4,096 samples of 512 tokens a step, LAMB at 0.00176, 125,000 steps, warm-up of 3,125, no dropout (arXiv 1909.11942, the base
    of version 2). A stretch of a single sentence takes a second part of another document, as the published code does and the
    paper does not say. N-grams of up to three words are masked, 15 % of a sample in all (the code's own default is at most 20
    tokens: `masking.at_most=20`).
    """
    shape = shape_of(size, Shape(768, 12, 12, 3072, 30000, 512, 16384, 128))
    encoder = albert_encoder(
        shape.vocab_size, 128 if size == "base" else shape.hidden_size // 2, shape.hidden_size, shape.num_layers, shape.heads,
        shape.intermediate_size, max_length=shape.max_length, initializer_range=shape.initializer_range,
    )  # fmt: skip
    second = ClassifierHead(labels=2, transform=Transform(activation="tanh"), dropout=0.1)
    return Pretraining(
        family="albert",
        encoder=encoder,
        head=masked_lm_head(encoder),
        masking=ALBERT,
        source=source,
        tokenizer=Unigram(vocab_size=shape.vocab_size, lowercase=True, specials="bert"),
        batching=TokenBudget(tokens=shape.tokens),
        training=TrainingConfig(
            optimizer=Lamb(lr=0.00176 if size == "base" else 5e-3),
            schedule=Linear(warmup=Fraction(of=3125 / 125_000)),
            budget=budget_of(budget, size, Steps(count=125_000)),
            accumulate=shape.accumulate,
            clip=1.0,
        ),
        max_length=shape.max_length,
        pairs=SentencePairs(task=SentenceOrder(), head=second),
    )


def tunbert(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """TunBERT: BERT-base on 67 MB of comments, a line each, read again and again.

    128 samples of 128 tokens a step, lr 1e-4, cosine after a warm-up of 1 % (instadeepai/tunbert). Every line is a document, and
    the report says how often it was read. The number of steps is that of the released TensorFlow checkpoint; that of the
    PyTorch build, whose schedule this is, is not published, nor are the weight decay (none here: its optimizer is named
    Adam) and the vocabulary (BERT's size here).
    """
    shape = shape_of(size, Shape(768, 12, 12, 3072, 30522, 128, 16384))
    run = bert(replace(source, split="line"), budget_of(budget, size, Steps(count=616_000)), size)
    optimizer = AdamW(lr=1e-4 if size == "base" else 1e-3, betas=(0.9, 0.999), weight_decay=0.0)
    schedule = Cosine(warmup=Fraction(of=0.01))
    return replace(
        run,
        batching=TokenBudget(tokens=shape.tokens),
        training=replace(run.training, optimizer=optimizer, schedule=schedule, accumulate=shape.accumulate),
        max_length=shape.max_length,
    )


def roberta(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """RoBERTa: byte-level pieces, samples of whole sentences, dynamic masks over all tokens, no clipping.

    fairseq's published command (arXiv 1907.11692): 2,048 samples of 512 tokens a step, lr 5e-4, warm-up of 10,000 of 125,000
    steps. The paper's own models took 500,000 steps of 8,000 samples. Where sentences end is told by their tokens.
    """
    return replace(_roberta(source, budget, size, 50265, 64, 5e-4, 125_000), blocks=WholeSentences())


def gottbert(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """GottBERT: RoBERTa for German, with 52,000 byte-level pieces of its own.

    8,192 samples of 512 tokens a step (the card's "8k tokens" is wrong), lr 4e-4, warm-up of 10,000 of 100,000 steps, no
    clipping, single tokens masked: the published flag for whole words had no effect (GottBERT/roberta-snakemake-pipeline). Its
    blocks ran over the borders of documents; here they do not.
    """
    return _roberta(source, budget, size, 52_000, 256, 4e-4, 100_000)


def _roberta(
    source: Source, budget: Budget | None, size: Size, vocab_size: int, accumulate: int, lr: float, steps: int
) -> Pretraining:
    shape = shape_of(size, Shape(768, 12, 12, 3072, vocab_size, 512, 16384, accumulate))
    encoder = roberta_encoder(
        shape.vocab_size, shape.hidden_size, shape.num_layers, shape.heads, shape.intermediate_size, shape.max_length,
        initializer_range=shape.initializer_range,
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
            optimizer=AdamW(lr=lr if size == "base" else 1e-3, betas=(0.9, 0.98), weight_decay=0.01),
            schedule=Linear(warmup=Fraction(of=10_000 / steps)),
            budget=budget_of(budget, size, Steps(count=steps)),
            accumulate=shape.accumulate,
            clip=None,
        ),
        max_length=shape.max_length,
    )


def mosaicbert(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """MosaicBERT: ALiBi, GeGLU, 30 % masked, 70,000 steps of 4,096 short samples.

    128 tokens a sample, lr 5e-4, warm-up of 6 %, a line down to a fiftieth (arXiv 2312.17482; the card says to zero). It
    evaluates with 15 % masked. Its weight decay of 1e-5 is not multiplied by
    the learning rate: 1e-5 / 5e-4 of AdamW's is the same.
    """
    shape = shape_of(size, Shape(768, 12, 12, 3072, 30528, 128, 16384, 32))
    lr = 5e-4 if size == "base" else 1e-3
    encoder = mosaicbert_encoder(
        shape.vocab_size, shape.hidden_size, shape.num_layers, shape.heads, shape.intermediate_size,
        max_length=512 if size == "base" else shape.max_length,
        initializer_range=shape.initializer_range,
    )  # fmt: skip
    return Pretraining(
        family="mosaicbert",
        encoder=encoder,
        head=mosaic_head(),
        masking=Masking(rate=0.3),
        source=source,
        # the published vocabulary of BERT; the table is padded to a multiple of 8
        tokenizer=WordPiece(vocab_size=30522 if size == "base" else shape.vocab_size),
        batching=TokenBudget(tokens=shape.tokens),
        training=TrainingConfig(
            optimizer=AdamW(lr=lr, betas=(0.9, 0.98), weight_decay=1e-5 / lr),
            schedule=Linear(warmup=Fraction(of=0.06), final=0.02),
            budget=budget_of(budget, size, Steps(count=70_000)),
            accumulate=shape.accumulate,
            clip=None,
            seed=17,
        ),
        max_length=shape.max_length,
        held_out_rate=0.15,
    )


def cubert(source: Source, budget: Budget | None, size: Size = "base") -> Pretraining:
    """CuBERT: BERT-large for Python, with both of BERT's tasks; a sentence is a logical line.

    `bert_next_sentence` with 24 layers of 1,024 and about 50,000 pieces of sub-words (arXiv 2001.00059). The text is the
    corpus.jsonl of `bothways code build`, whose lines are sentences. The released weights went over their corpus once and twice,
    at 512 tokens a sample; of rate, batch and steps its repository says nothing, so those are BERT's.
    """
    shape = shape_of(size, Shape(1024, 24, 16, 4096, 50_048, 512, 16384, 8))
    run = bert_next_sentence(source, budget, size)
    encoder = bert_encoder(
        shape.vocab_size, shape.hidden_size, shape.num_layers, shape.heads, shape.intermediate_size, shape.max_length,
        initializer_range=shape.initializer_range,
    )  # fmt: skip
    return replace(
        run,
        encoder=encoder,
        head=masked_lm_head(encoder),
        tokenizer=ByteLevelBpe(vocab_size=shape.vocab_size, specials="bert"),
        pairs=SentencePairs(task=NextSentence(sentences="lines")),
    )
