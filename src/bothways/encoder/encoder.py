"""The encoder: an embedding, and a short loop over layers. It has never heard of BERT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bothways.encoder.config import EncoderConfig, Layer
from bothways.errors import InputError
from bothways.layers.attention import Attention, SelfAttention
from bothways.layers.context import Context
from bothways.layers.convolution import TokenConvolution
from bothways.layers.disentangled import PositionTable
from bothways.layers.embedding import TokenEmbedding
from bothways.layers.mlp import FeedForward
from bothways.layers.monarch import Monarch, MonarchMixer
from bothways.layers.norm import build_norm
from bothways.layers.position import Alibi, Bucketed, Disentangled, Rotary
from bothways.ops.attention import Backend
from bothways.ops.global_attention import Globals
from bothways.ops.relative import alibi_slopes
from bothways.ragged import Batch, Encoded, Ragged


class EncoderLayer(nn.Module):
    """One layer. `normalised` says its input has been normalised already, so it does not again."""

    def __init__(self, config: Layer, size: int, normalised: bool = False) -> None:
        super().__init__()
        self.config = config
        self.mixer = build_mixer(config.mixer, size)
        self.mlp = FeedForward(config.mlp, size)
        self.mixer_norm = build_norm(config.norm if config.mixer_residual and not normalised else None, size)
        self.mlp_norm = build_norm(config.norm, size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "tokens size"], context: Context, seen: Float[Tensor, "tokens size"] | None = None
    ) -> Float[Tensor, "tokens size"]:
        """`seen`: what keys and values are made of, where it is not `x`.

        Only attention with a residual has a use for it; decoders take no other.
        """
        pre = self.config.order == "pre"
        if not self.config.mixer_residual:
            x = self.dropout(self.mixer(x, context))
        else:
            x = x + self.dropout(self._mixed(x, context, seen))
            x = x if pre else self.mixer_norm(x)
        if pre:
            return x + self.dropout(self.mlp(self.mlp_norm(x)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))

    def entering(self, x: Float[Tensor, "tokens size"]) -> Float[Tensor, "tokens size"]:
        """What the mixer is given where `x` enters the layer."""
        return self.mixer_norm(x) if self.config.order == "pre" and self.config.mixer_residual else x

    def _mixed(self, x: Tensor, context: Context, seen: Tensor | None) -> Tensor:
        entering = self.entering(x)
        return self.mixer(entering, context) if seen is None else self.mixer(entering, context, self.entering(seen))


def build_mixer(config: Attention | Monarch, size: int) -> SelfAttention | MonarchMixer:
    """The module of a mixer."""
    return SelfAttention(config, size) if isinstance(config, Attention) else MonarchMixer(config, size)


class Encoder(nn.Module):
    """A bidirectional encoder over packed batches.

    `layers` holds each module once; `stack` is what stands at each depth, where a shared one comes again.
    `backend` pins the attention backend; None lets each call take the first that can serve it. With `recompute`, a pass that is
    to be differentiated keeps each layer's input alone, and computes the layer again on the way back (arXiv 1604.06174).
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.backend: Backend | None = None
        self.recompute = False
        size = config.hidden_size
        self.embedding = TokenEmbedding(config.embedding, config.vocab_size, size, config.max_length, config.filler)
        self.layers = nn.ModuleList(
            EncoderLayer(config.layer(config.depths.index(i)), size, normalised=config.skip_first_norm and i == 0)
            for i in range(config.modules)
        )
        self.relative = _relative(config)
        self.convolution = TokenConvolution(config.convolution, size) if config.convolution else None
        self.final_norm = build_norm(config.final_norm, size)

    @property
    def stack(self) -> list[EncoderLayer]:
        """The layer at each depth."""
        return [cast("EncoderLayer", self.layers[i]) for i in self.config.depths]

    def embed(self, batch: Batch) -> tuple[Float[Tensor, "tokens size"], Ragged]:
        """The vectors that enter the first layer, and their boundaries: longer ones where sequences are filled up.

        Raises:
            InputError: a sequence longer than the encoder allows.
        """
        longest = max(batch.ragged.lengths, default=0)
        if longest > self.config.max_length:
            raise InputError(f"a sequence has {longest} tokens, the encoder takes at most {self.config.max_length}")
        if self.config.filler is not None:
            batch = batch.filled(self.config.max_length, self.config.filler)
        return self.embedding(batch), batch.ragged

    def context(self, ragged: Ragged, global_mask: Bool[Tensor, " tokens"] | None = None) -> Context:
        """What the layers of one forward pass share.

        Raises:
            InputError: a mask of global tokens, but no layer that knows any.
        """
        mixers = self.config.attentions
        rotary = {
            (position, size): position.table(ragged, size)
            for position, size in dict.fromkeys((mixer.position, mixer.sizes(self.config.hidden_size)[2]) for mixer in mixers)
            if isinstance(position, Rotary)
        }
        slopes = {
            heads: torch.tensor(alibi_slopes(heads), device=ragged.positions.device)
            for heads in {mixer.heads for mixer in mixers if isinstance(mixer.position, Alibi)}
        }
        everywhere = None
        if global_mask is not None:
            if not any(mixer.global_tokens for mixer in mixers):
                raise InputError("the batch has a global_mask, but no layer of this encoder has global tokens")
            everywhere = Globals.of(global_mask, ragged)
        match self.relative:
            case PositionTable():
                relative = self.relative(ragged.longest)
            case nn.Embedding():
                relative = self.relative.weight
            case _:
                relative = None
        return Context(ragged, rotary, slopes, relative, everywhere, backend=self.backend)

    def forward(self, batch: Batch, keep: bool = False) -> Encoded:
        """Hidden states of a batch; with `keep`, the embedding's and every layer's output as well."""
        x, ragged = self.embed(batch)
        context = self.context(ragged, batch.global_mask)
        last, kept = x, [x]
        for last in self.deepen(x, context):
            if keep:
                kept.append(last)
        hidden = self.final_norm(last)
        if self.config.filler is not None:
            rows = ragged.beginnings(batch.ragged)
            hidden, kept, ragged = hidden[rows], [one[rows] for one in kept], batch.ragged
        return Encoded(hidden=hidden, ragged=ragged, layers=tuple(kept) if keep else ())

    def deepen(self, x: Float[Tensor, "tokens size"], context: Context) -> Iterator[Float[Tensor, "tokens size"]]:
        """Each layer's output, from what enters the first."""
        entered = x
        for i, layer in enumerate(self.stack):
            x = self.through(layer, x, context)
            if i == 0 and self.convolution is not None:
                x = self.convolution(entered, x, context.ragged)
            yield x

    def through(
        self,
        layer: EncoderLayer,
        x: Float[Tensor, "tokens size"],
        context: Context,
        seen: Float[Tensor, "tokens size"] | None = None,
    ) -> Float[Tensor, "tokens size"]:
        """A layer's output, of the encoder or of a decoder on it; `recompute` holds for both."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(layer, x, context, seen, use_reentrant=False)
        return layer(x, context, seen)

    def flops(self, ragged: Ragged, everywhere: tuple[int, ...] = ()) -> float:
        """Matrix-multiply FLOPs of one forward pass, filler left out; `everywhere`: global tokens of each sequence, if any."""
        return sum(self.flops_by_part(ragged, everywhere).values())

    def flops_by_part(self, ragged: Ragged, everywhere: tuple[int, ...] = ()) -> dict[str, float]:
        """The same, by what they are spent on; a layer that is shared counts at each depth."""
        lengths = tuple(map(self.config.taken, ragged.real))
        beside = {} if self.convolution is None else {"convolution": self.convolution.flops(ragged)}
        return {
            "embedding": self.embedding.flops(sum(lengths)),
            "attention": sum(layer.mixer.flops(lengths, everywhere[: len(lengths)]) for layer in self.stack),
            "mlp": sum(layer.mlp.flops(sum(lengths)) for layer in self.stack),
            **beside,
        }


def _relative(config: EncoderConfig) -> nn.Embedding | PositionTable | None:
    """The table of relative positions that all layers share."""
    for mixer in config.attentions:
        match mixer.position:
            case Bucketed(rows=rows):
                return nn.Embedding(rows, mixer.heads)
            case Disentangled():
                return PositionTable(mixer.position, config.hidden_size)
            case _:
                pass
    return None
