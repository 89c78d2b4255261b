"""The entries of the speedrun, each an idea on top of one before."""

from __future__ import annotations

from dataclasses import replace

from task import LAYERS, LENGTH, VOCABULARY, WIDTH

from bothways.config import config
from bothways.data.mask_units import RateLine
from bothways.data.masking import BERT, MODERNBERT, Masking
from bothways.encoder.config import EncoderConfig, Layer, TruncatedNormal
from bothways.families.bert import bert, masked_lm_head
from bothways.families.modernbert import modernbert
from bothways.layers.attention import Attention
from bothways.layers.embedding import Embedding
from bothways.layers.heads import MaskedLmHead, Transform
from bothways.layers.mlp import Gated, Plain
from bothways.layers.norm import LayerNorm, RmsNorm
from bothways.layers.position import Rotary
from bothways.training.optimizer import AdamW, Muon, Optimizer, StableAdamW
from bothways.training.schedule import Fraction, Linear, Schedule, Trapezoidal


@config
class Entry:
    """A participant.

    Attributes:
        batch: sequences of 128 a step.
        frequencies: the vocabulary's biases start at the logarithms of the training text's token frequencies.
    """

    encoder: EncoderConfig
    head: MaskedLmHead
    masking: Masking
    optimizer: Optimizer
    schedule: Schedule
    batch: int = 32
    clip: float | None = 1.0
    frequencies: bool = False


def _bert() -> Entry:
    """The baseline's network and recipe, computed by us: what our engine alone brings."""
    encoder = bert(VOCABULARY, WIDTH, LAYERS, 2, 4 * WIDTH, LENGTH)
    return Entry(
        encoder=encoder,
        head=masked_lm_head(encoder),
        masking=BERT,
        optimizer=AdamW(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0),
        schedule=Linear(warmup=Fraction(of=0.0)),
    )


def _modernbert() -> Entry:
    """ModernBERT's recipe as published (arXiv 2412.13663): StableAdamW, trapezoid with 1-sqrt decay, 30 % masked."""
    encoder = modernbert(VOCABULARY, WIDTH, LAYERS, 2, 3 * WIDTH, max_length=LENGTH, global_theta=10_000.0)
    norm = encoder.final_norm
    assert isinstance(norm, LayerNorm)
    return Entry(
        encoder=encoder,
        head=MaskedLmHead(transform=Transform(bias=False, norm=norm)),
        masking=MODERNBERT,
        optimizer=StableAdamW(lr=2e-3, betas=(0.9, 0.98), weight_decay=1e-5, fully_decoupled=True),
        schedule=Trapezoidal(warmup=Fraction(of=0.03), decay=Fraction(of=0.2), final=0.001),
        clip=None,
    )


def _trunk(mlp: Gated | Plain, heads: int = 2) -> EncoderConfig:
    """Pre-norm with RMS norms, rotary, normalised queries and keys, layers that begin as the identity."""
    norm = RmsNorm(eps=1e-6)
    layer = Layer(
        mixer=Attention(heads=heads, position=Rotary(theta=10_000.0), bias=False, qk_norm=norm),
        mlp=mlp,
        norm=norm,
        order="pre",
    )
    return EncoderConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_layers=LAYERS,
        max_length=LENGTH,
        embedding=Embedding(norm=norm),
        layers=(layer,),
        final_norm=norm,
        initialisation=TruncatedNormal(std=0.05, zero_residual=True),
    )


def _muon() -> Entry:
    return Entry(
        encoder=_trunk(Gated(size=352, bias=False)),
        head=MaskedLmHead(transform=None),
        masking=Masking(rate=0.3, mask=1.0, random=0.0),
        optimizer=Muon(lr=0.02, rest=AdamW(lr=5e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)),
        schedule=Trapezoidal(warmup=Fraction(of=0.0), decay=Fraction(of=0.5), final=0.0),
        batch=16,
        frequencies=True,
    )


muon = _muon()
ENTRIES: dict[str, Entry] = {
    "bert": _bert(),
    "modernbert": _modernbert(),
    "muon": muon,
    "muon-batch8": replace(muon, batch=8),
    "muon-batch32": replace(muon, batch=32),
    "muon-relu2": replace(muon, encoder=_trunk(Plain(size=512, activation="relu2", bias=False))),
    "muon-nofreq": replace(muon, frequencies=False),
    "muon-head": replace(muon, head=MaskedLmHead(transform=Transform(bias=False, norm=RmsNorm(eps=1e-6)))),
    "muon-80": replace(muon, masking=Masking(rate=0.3)),
    "muon-40": replace(muon, masking=Masking(rate=0.4, mask=1.0, random=0.0)),
    "muon-40-15": replace(muon, masking=Masking(rate=0.4, mask=1.0, random=0.0, schedule=RateLine(to=0.15))),
    "muon-heads4": replace(muon, encoder=_trunk(Gated(size=352, bias=False), heads=4)),
}
