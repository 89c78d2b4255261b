"""Published ladders of ablation as runs: every rung is a whole run, and differs in one thing from an earlier one.

Rungs are there to be compared: their weights stay in their checkpoints, and no model is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bothways.data.masking import NEOBERT, Masking
from bothways.data.tokenizer_training import ByteLevelBpe
from bothways.encoder.config import EncoderConfig
from bothways.families.bert import bert as bert_encoder
from bothways.families.bert import masked_lm_head
from bothways.families.neobert import neobert as neobert_encoder
from bothways.layers.attention import Attention
from bothways.layers.heads import MaskedLmHead
from bothways.layers.mlp import Gated, Plain
from bothways.layers.norm import LayerNorm
from bothways.layers.position import Alibi, Learned
from bothways.recipes.classic import bert, mosaicbert
from bothways.recipes.recipe import Budget, Size, Source
from bothways.recipes.runs import Pretraining
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Cosine, Fraction, Steps, Tokens

# With what all rungs are measured, however they are trained
MEASURED = Masking(rate=0.15, mask=1.0, random=0.0, count="rounded")
# Of each rung; and the steps between two, where the budget is of hours
_EVALUATIONS, _OFTEN = 20, 100
# The published shapes of 250 million parameters, beside 12 layers of 768
_WIDE, _DEEP = (16 / 12, 1056 / 768), (28 / 12, 1.0)


@dataclass(frozen=True)
class Rung:
    """A run of a ladder.

    Attributes:
        above: the rung that it changes in one thing; None of the first.
        change: what that is, in a few words.
    """

    name: str
    above: str | None
    change: str
    run: Pretraining


Ladder = tuple[Rung, ...]


class _Climber:
    """Puts rungs together, each by what it changes of an earlier one."""

    def __init__(self, name: str, change: str, run: Pretraining) -> None:
        self.rungs = {name: Rung(name, None, change, run)}

    def add(self, name: str, above: str, change: str, **fields: Any) -> None:
        self.rungs[name] = Rung(name, above, change, replace(self.rungs[above].run, **fields))

    @property
    def ladder(self) -> Ladder:
        return tuple(self.rungs.values())


def neobert_ladder(source: Source, budget: Budget, size: Size = "tiny", better: Source | None = None) -> Ladder:
    """NeoBERT's ladder from BERT, M0 to M8 (arXiv 2502.19587): network, text, pieces, optimizer, masks, size.

    M3 was dropped in the paper, so what follows stands on M2. M2 is there where there is a `better` text (RefinedWeb in the
    paper). M6, packing in which texts see each other, is left out: here no text ever sees another. M3's pieces are
    byte-level ones, the nearest there is to Llama's; a loss per piece is not to be compared with that of other pieces.

    The paper's Table 2 names three things by which M1's network differs from M0's, and ends with NeoBERT; its code has a switch
    for each. So all else in which NeoBERT's network is not BERT's is taken to be there in M0 already: no dropout, no biases
    but the norms' and the decoder's, no token types, no norm behind the embedding, a decoder of its own without a layer before
    it, uniform weights. M8 is the network of the recipe `neobert`, for texts as long as BERT's.
    """
    first = _measured(bert(source, budget, size))
    training, shape = first.training, first.encoder
    heads = next(one.heads for one in shape.attentions)
    inner = shape.layer(0).mlp.size
    modern = neobert_encoder(
        shape.vocab_size, shape.hidden_size, shape.num_layers, heads, inner, shape.max_length,
        initializer_range=shape.initialisation.spread,
    )  # fmt: skip
    first = replace(first, encoder=_classic(modern, inner), head=MaskedLmHead(transform=None, tied=False))
    made = _Climber("m0", "like BERT, but norms come first; without next sentences", first)
    made.add("m1", "m0", "rotary positions, SwiGLU, RMS norms", encoder=modern)
    text = "m1"
    if better is not None:
        made.add("m2", "m1", "a better text", source=better)
        text = "m2"
    pieces = ByteLevelBpe(vocab_size=first.tokenizer.vocab_size, specials="bert")  # type: ignore[union-attr]
    made.add("m3", text, "byte-level pieces (dropped)", tokenizer=pieces)
    lr = 6e-4 if size == "base" else 2e-3
    adam = AdamW(lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    cosine = Cosine(warmup=Fraction(of=0.002 if size == "base" else 0.01), final=0.1)
    made.add("m4", text, "AdamW and a cosine", training=replace(training, optimizer=adam, schedule=cosine))
    made.add("m5", "m4", "20 % masked, all by [MASK]", masking=NEOBERT)
    made.add("m7", "m5", "larger: wide", encoder=_scaled(modern, *_WIDE))
    made.add("m8", "m7", "as large: deep", encoder=_scaled(modern, *_DEEP))
    return made.ladder


def mosaicbert_ladder(source: Source, budget: Budget, size: Size = "tiny", better: Source | None = None) -> Ladder:
    """MosaicBERT's components, one after the other, on BERT (arXiv 2312.17482), all trained as MosaicBERT is.

    Two of them are no rungs, for they change no number here: which kernel computes attention, and that nothing is padded.
    `better` is not used: the text is one.
    """
    last = mosaicbert(source, budget, size)
    shape = last.encoder
    heads = next(one.heads for one in shape.attentions)
    inner = shape.layer(0).mlp.size
    # without dropout of attention weights, as MosaicBERT
    network = bert_encoder(
        shape.vocab_size, shape.hidden_size, shape.num_layers, heads, inner, shape.max_length,
        attention_dropout=0.0, initializer_range=shape.initialisation.spread,
    )  # fmt: skip
    first = replace(last, encoder=network, head=masked_lm_head(network), masking=replace(last.masking, rate=0.15))
    made = _Climber("bert", "BERT's network, 15 % masked", _measured(first))
    alibi = _mixed(replace(network, embedding=replace(network.embedding, position=None)), position=Alibi())
    made.add("alibi", "bert", "ALiBi in place of a table of positions", encoder=alibi)
    gated = _layered(alibi, mlp=Gated(size=inner, activation="gelu", bias=False, out_bias=True))
    made.add("glu", "alibi", "GeGLU, of the same inner width", encoder=gated)
    norm = LayerNorm(eps=1e-12, precision="bf16")
    low = _layered(replace(gated, embedding=replace(gated.embedding, norm=norm)), norm=norm)
    made.add("low-precision-norm", "glu", "norms in bfloat16", encoder=low)
    made.add("masked-30", "low-precision-norm", "30 % masked", masking=last.masking)
    return made.ladder


Climb = Callable[[Source, Budget, Size, Source | None], Ladder]
LADDERS: dict[str, Climb] = {"neobert": neobert_ladder, "mosaicbert": mosaicbert_ladder}


def _measured(run: Pretraining) -> Pretraining:
    """Evaluated as all are, some twenty times; the family is BERT's in name, since no model is saved."""
    training = run.training
    match training.budget:
        case Steps(count=steps):
            every = steps // _EVALUATIONS
        case Tokens(count=tokens):
            every = tokens // (run.batching.tokens * training.accumulate) // _EVALUATIONS
        case _:
            every = _OFTEN
    return replace(run, family="bert", held_out_rate=MEASURED.rate, training=replace(training, evaluate_every=max(every, 1)))


def _layered(encoder: EncoderConfig, **fields: Any) -> EncoderConfig:
    return replace(encoder, layers=tuple(replace(layer, **fields) for layer in encoder.layers))


def _mixed(encoder: EncoderConfig, **fields: Any) -> EncoderConfig:
    mixers = [layer.mixer for layer in encoder.layers]
    assert all(isinstance(one, Attention) for one in mixers)
    layers = tuple(replace(layer, mixer=replace(one, **fields)) for layer, one in zip(encoder.layers, mixers, strict=True))
    return replace(encoder, layers=layers)


def _classic(encoder: EncoderConfig, inner: int) -> EncoderConfig:
    """BERT's positions, MLPs and kind of norm in NeoBERT's network; the MLPs have as many weights."""
    norm = LayerNorm(eps=1e-5)
    embedding = replace(encoder.embedding, position=Learned())
    placed = _mixed(replace(encoder, embedding=embedding, final_norm=norm), position=None)
    return _layered(placed, mlp=Plain(size=inner, activation="gelu", bias=False), norm=norm)


def _scaled(encoder: EncoderConfig, deeper: float, wider: float) -> EncoderConfig:
    """So many times the layers, and the width; heads stay as many."""
    mlp = encoder.layer(0).mlp
    larger = replace(encoder, hidden_size=round(encoder.hidden_size * wider), num_layers=round(encoder.num_layers * deeper))
    return _layered(larger, mlp=replace(mlp, size=round(mlp.size * wider)))
