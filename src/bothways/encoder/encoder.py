"""The encoder: an embedding, and a short loop over layers. It has never heard of BERT."""

from __future__ import annotations

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from bothways.encoder.config import EncoderConfig, Layer
from bothways.errors import InputError
from bothways.layers.attention import SelfAttention
from bothways.layers.context import Context
from bothways.layers.convolution import TokenConvolution
from bothways.layers.disentangled import PositionTable
from bothways.layers.embedding import TokenEmbedding
from bothways.layers.mlp import FeedForward
from bothways.layers.norm import build_norm
from bothways.layers.position import Bucketed, Disentangled, Rotary
from bothways.ops.attention import Backend
from bothways.ops.rotary import rotary_table
from bothways.ragged import Batch, Encoded, Ragged


class EncoderLayer(nn.Module):
    """One layer. `normalised` says its input has been normalised already, so it does not again."""

    def __init__(self, config: Layer, size: int, normalised: bool = False) -> None:
        super().__init__()
        self.config = config
        self.mixer = SelfAttention(config.mixer, size)
        self.mlp = FeedForward(config.mlp, size)
        self.mixer_norm = build_norm(None if normalised else config.norm, size)
        self.mlp_norm = build_norm(config.norm, size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "tokens size"], context: Context, seen: Float[Tensor, "tokens size"] | None = None
    ) -> Float[Tensor, "tokens size"]:
        """`seen`: what keys and values are made of, where it is not `x` (post-norm alone)."""
        if self.config.order == "pre":
            x = x + self.dropout(self.mixer(self.mixer_norm(x), context))
            return x + self.dropout(self.mlp(self.mlp_norm(x)))
        x = self.mixer_norm(x + self.dropout(self.mixer(x, context, seen)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class Encoder(nn.Module):
    """A bidirectional encoder over packed batches.

    `layers` holds each module once; `stack` is what stands at each depth, where a shared one comes again.
    `backend` pins the attention backend; None lets each call take the first that can serve it.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.backend: Backend | None = None
        size = config.hidden_size
        self.embedding = TokenEmbedding(config.embedding, config.vocab_size, size, config.max_length)
        self.layers = nn.ModuleList(
            EncoderLayer(config.layer(config.depths.index(i)), size, normalised=config.skip_first_norm and i == 0)
            for i in range(max(config.depths) + 1)
        )
        self.relative = _relative(config)
        self.convolution = TokenConvolution(config.convolution, size) if config.convolution else None
        self.final_norm = build_norm(config.final_norm, size)

    @property
    def stack(self) -> list[EncoderLayer]:
        """The layer at each depth."""
        return [cast("EncoderLayer", self.layers[i]) for i in self.config.depths]

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "tokens size"], Ragged]:
        """The vectors that enter the first layer, and their boundaries.

        Raises:
            InputError: a sequence longer than the encoder allows.
        """
        longest = max(batch.ragged.lengths, default=0)
        if longest > self.config.max_length:
            raise InputError(f"a sequence has {longest} tokens, the encoder takes at most {self.config.max_length}")
        return self.embedding(batch), batch.ragged

    def context(self, ragged: Ragged) -> Context:
        """What the layers of one forward pass share."""
        mixers = [layer.mixer for layer in self.config.layers]
        rotary = {
            (position, size): rotary_table(ragged.positions, ragged.longest, size, position.theta)
            for position, size in dict.fromkeys((mixer.position, mixer.sizes(self.config.hidden_size)[2]) for mixer in mixers)
            if isinstance(position, Rotary)
        }
        match self.relative:
            case PositionTable():
                relative = self.relative(ragged.longest)
            case nn.Embedding():
                relative = self.relative.weight
            case _:
                relative = None
        return Context(ragged=ragged, rotary=rotary, relative=relative, backend=self.backend)

    def forward(self, batch: Batch, keep: bool = False) -> Encoded:
        """Hidden states of a batch; with `keep`, the embedding's and every layer's output as well."""
        x, ragged = self.embed(batch)
        context = self.context(ragged)
        kept = [x]
        for i, layer in enumerate(self.stack):
            x = layer(x, context)
            if i == 0 and self.convolution is not None:
                x = self.convolution(kept[0], x, ragged)
            if keep:
                kept.append(x)
        return Encoded(hidden=self.final_norm(x), ragged=ragged, layers=tuple(kept) if keep else ())

    def flops(self, ragged: Ragged) -> float:
        """Matrix-multiply FLOPs of one forward pass."""
        beside = 0.0 if self.convolution is None else self.convolution.flops(ragged)
        return beside + sum(layer.mixer.flops(ragged.lengths) + layer.mlp.flops(ragged.tokens) for layer in self.stack)


def _relative(config: EncoderConfig) -> nn.Embedding | PositionTable | None:
    """The table of relative positions that all layers share."""
    for mixer in (layer.mixer for layer in config.layers):
        match mixer.position:
            case Bucketed(buckets=buckets):
                return nn.Embedding(buckets, mixer.heads)
            case Disentangled():
                return PositionTable(mixer.position, config.hidden_size)
            case _:
                pass
    return None
