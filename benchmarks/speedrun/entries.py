"""The entries of the speedrun, each an idea on top of one before."""

from __future__ import annotations

from dataclasses import replace

from task import LAYERS, LENGTH, VOCABULARY, WIDTH

from bothways.config import config
from bothways.data.cooccurrence import Cooccurrence
from bothways.data.mask_units import RateLine
from bothways.data.masking import BERT, MODERNBERT, Masking
from bothways.encoder.config import EncoderConfig, Layer, TruncatedNormal
from bothways.families.bert import bert, masked_lm_head
from bothways.families.decoder import decoder
from bothways.families.modernbert import modernbert
from bothways.layers.attention import Attention
from bothways.layers.embedding import Embedding
from bothways.layers.heads import MaskedLmHead, Transform
from bothways.layers.mlp import Gated, Plain
from bothways.layers.norm import LayerNorm, RmsNorm
from bothways.layers.position import Rotary
from bothways.recipes.runs import FamilyName
from bothways.training.optimizer import AdamW, Muon, Optimizer, StableAdamW
from bothways.training.schedule import Fraction, Linear, Schedule, Trapezoidal


@config
class Entry:
    """A participant.

    Attributes:
        batch: sequences of 128 a step.
        family: the published family that the network is a case of, if it is one.
        vectors: token embeddings begin as word vectors of the training text.
        frequencies: the output's biases begin as the logarithms of the tokens' frequencies in it.
    """

    encoder: EncoderConfig
    head: MaskedLmHead
    masking: Masking
    optimizer: Optimizer
    schedule: Schedule
    family: FamilyName | None = None
    batch: int = 32
    clip: float | None = 1.0
    vectors: Cooccurrence | None = None
    frequencies: bool = False


def _bert() -> Entry:
    """The baseline's network and recipe, computed by us: what our engine alone brings."""
    encoder = bert(VOCABULARY, WIDTH, LAYERS, 2, 4 * WIDTH, LENGTH)
    return Entry(
        family="bert",
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
        family="modernbert",
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
        initialisation=_ZEROED,
    )


_ZEROED = TruncatedNormal(std=0.05, zero_residual=True)


def _zeroed(encoder: EncoderConfig) -> EncoderConfig:
    """Drawn so that layers begin as the identity."""
    return replace(encoder, initialisation=_ZEROED)


def _qwen3() -> Entry:
    """As `muon`, in the shape of a published family that every tool reads: Qwen3's, read both ways."""
    position = Rotary(theta=10_000.0)
    encoder = decoder(
        VOCABULARY, WIDTH, LAYERS, 2, None, 352, LENGTH, position, causal=False, qk_norm=True, head_size=64, eps=1e-6
    )
    encoder = _zeroed(encoder)
    head = MaskedLmHead(transform=None, tied=True, bias=False)
    return replace(_muon(), family="qwen3", encoder=encoder, head=head)


def _optimizer(muon: float = 0.02, adam: float = 5e-3, beta: float = 0.95, decay: float = 0.0) -> Muon:
    """AdamW, of which `beta` is the second, has what is no hidden matrix."""
    return Muon(lr=muon, weight_decay=decay, rest=AdamW(lr=adam, betas=(0.9, beta), eps=1e-8, weight_decay=0.0))


def _muon() -> Entry:
    return Entry(
        encoder=_trunk(Gated(size=352, bias=False)),
        head=MaskedLmHead(transform=None),
        masking=Masking(rate=0.3, mask=1.0, random=0.0),
        optimizer=_optimizer(),
        schedule=Trapezoidal(warmup=Fraction(of=0.0), decay=Fraction(of=0.5), final=0.0),
        batch=16,
    )


def _near() -> Entry:
    """ModernBERT's trunk reading near at hand: three of four layers see two tokens to either side. What words occur beside and
    how often is known before the first step; nothing stands between the states and the table, so that it is of use from then on.
    """
    shape = modernbert(
        VOCABULARY, WIDTH, LAYERS, 4, 3 * WIDTH,
        max_length=LENGTH, window=2, pattern=(False, False, True, False), global_theta=10_000.0,
    )  # fmt: skip
    return Entry(
        family="bothways",
        encoder=_zeroed(shape),
        head=MaskedLmHead(transform=None),
        masking=Masking(rate=0.4, mask=1.0, random=0.0, schedule=RateLine(to=0.15)),
        optimizer=_optimizer(adam=3e-3, beta=0.99, decay=0.1),
        schedule=Trapezoidal(warmup=Fraction(of=0.0), decay=Fraction(of=0.8), final=0.0),
        batch=16,
        vectors=Cooccurrence(tokens=4_000_000),
        frequencies=True,
    )


muon = _muon()
bert_, modernbert_, qwen3_, near = _bert(), _modernbert(), _qwen3(), _near()
_often = replace(muon, masking=replace(muon.masking, rate=0.4), batch=8)
ENTRIES: dict[str, Entry] = {
    "bert": bert_,
    "modernbert": modernbert_,
    "modernbert-batch8": replace(modernbert_, batch=8),
    "muon": muon,
    "qwen3": qwen3_,
    "muon-batch8": replace(muon, batch=8),
    "muon-relu2": replace(muon, encoder=_trunk(Plain(size=512, activation="relu2", bias=False))),
    "muon-gated-relu2": replace(muon, encoder=_trunk(Gated(size=352, activation="relu2", bias=False))),
    "muon-head": replace(muon, head=MaskedLmHead(transform=Transform(bias=False, norm=RmsNorm(eps=1e-6)))),
    "muon-80": replace(muon, masking=Masking(rate=0.3)),
    "muon-40": replace(muon, masking=replace(muon.masking, rate=0.4)),
    "muon-adam1e-2": replace(muon, optimizer=_optimizer(adam=1e-2)),
    "muon-adam25e-4": replace(muon, optimizer=_optimizer(adam=2.5e-3)),
    "muon-heads4": replace(muon, encoder=_trunk(Gated(size=352, bias=False), heads=4)),
    # eight sequences a step, 40 % masked
    "often": _often,
    "often-to-15": replace(_often, masking=replace(_often.masking, schedule=RateLine(to=0.15))),
    "often-lower": replace(_often, optimizer=_optimizer(0.01, 2.5e-3)),
    "often-modernbert": replace(_often, family="modernbert", encoder=_zeroed(modernbert_.encoder), head=modernbert_.head),
    "near": near,
    # where the first seconds count
    "near-quick": replace(near, vectors=Cooccurrence(tokens=1_000_000)),
    "often-qwen3": replace(_often, family="qwen3", encoder=qwen3_.encoder, head=qwen3_.head),
}
