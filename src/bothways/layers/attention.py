"""Multi-head self-attention over packed sequences (arXiv 1706.03762)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from bothways.config import config
from bothways.layers.context import Context
from bothways.layers.disentangled import PositionScores
from bothways.layers.global_attention import GlobalAttention
from bothways.layers.norm import Norm, build_norm
from bothways.layers.position import Alibi, Bucketed, Disentangled, Rotary, ScorePosition
from bothways.layers.ranges import Dropout
from bothways.ops.attention import Edit, Score, attention
from bothways.ops.beside import attention_beside
from bothways.ops.graphs import outside
from bothways.ops.pairs import attention_of_pairs
from bothways.ops.relative import Bucket, Distance
from bothways.ops.rotary import rotate


@config
class Attention:
    """Multi-head self-attention.

    Attributes:
        heads: number of heads.
        kv_heads: heads of keys and values, each serving an equal group of query heads (arXiv 2305.13245); None: as many as heads.
        head_size: features of a head; None is hidden_size / heads.
        window: a token sees tokens at most this many positions away; None sees the whole sequence.
        causal: a token sees none after it.
        global_tokens: tokens that the batch marks see the whole sequence, by projections of their own, and are seen
            by all of it (Longformer, arXiv 2004.05150).
        position: positions that act inside the score.
        qk_norm: of each head's query and key, before positions turn them (Qwen3, arXiv 2505.09388).
        bias: whether the projections have biases.
        key_bias: whether that of keys has one, where the others do.
        out_bias: whether the output projection has one; None: as the others.
        dropout: of attention weights.
        out_dropout: of what attention adds to the stream.
    """

    type: Literal["attention"] = "attention"
    heads: PositiveInt
    kv_heads: PositiveInt | None = None
    head_size: PositiveInt | None = None
    window: NonNegativeInt | None = None
    causal: bool = False
    global_tokens: bool = False
    position: ScorePosition | None = None
    qk_norm: Norm | None = None
    bias: bool = True
    key_bias: bool = True
    out_bias: bool | None = None
    dropout: Dropout = 0.0
    out_dropout: Dropout = 0.0

    def sizes(self, hidden_size: int) -> tuple[int, int, int]:
        """Heads of queries, heads of keys and values, and features of each."""
        return self.heads, self.kv_heads or self.heads, self.head_size or hidden_size // self.heads

    def parts(self, hidden_size: int) -> dict[str, list[int]]:
        """Projections that are several in one, by name: the rows of each."""
        heads, kv_heads, size = self.sizes(hidden_size)
        fused = {"qkv": [heads * size, kv_heads * size, kv_heads * size]}
        return {**fused, "everywhere.key_value": [heads * size] * 2} if self.global_tokens else fused


class SelfAttention(nn.Module):
    """Queries, keys and values by one projection: the rows of all query heads, then of key heads, then of value heads."""

    def __init__(self, config: Attention, size: int) -> None:
        super().__init__()
        self.config = config
        self.heads, self.kv_heads, self.head_size = config.sizes(size)
        inner, kv_inner = self.heads * self.head_size, self.kv_heads * self.head_size
        keyless = config.bias and not config.key_bias
        self.qkv = nn.Linear(size, inner + 2 * kv_inner, bias=config.bias and config.key_bias)
        self.query_bias = nn.Parameter(torch.zeros(inner)) if keyless else None
        self.value_bias = nn.Parameter(torch.zeros(kv_inner)) if keyless else None
        out_bias = config.bias if config.out_bias is None else config.out_bias
        self.out = nn.Linear(inner, size, bias=out_bias)
        self.everywhere = GlobalAttention(size, self.heads, self.head_size, config.bias) if config.global_tokens else None
        self.q_norm = build_norm(config.qk_norm, self.head_size)
        self.k_norm = build_norm(config.qk_norm, self.head_size)
        self.relative = (
            PositionScores(config.position, size, self.heads, self.head_size, config.bias, config.bias and config.key_bias)
            if isinstance(config.position, Disentangled)
            else None
        )
        self.dropout = nn.Dropout(config.out_dropout)

    def queries_keys_values(
        self, x: Float[Tensor, "tokens size"], context: Context | None, seen: Float[Tensor, "tokens size"] | None = None
    ) -> tuple[
        Float[Tensor, "tokens heads head_size"],
        Float[Tensor, "tokens kv_heads head_size"],
        Float[Tensor, "tokens kv_heads head_size"],
    ]:
        """What meets in the scores, and what is gathered by them; without a `context`, not turned by rotary positions."""
        heads, position = (self.heads, self.kv_heads, self.kv_heads), self.config.position
        qkv = self._project(x, seen, self._bias()).view(x.shape[0], sum(heads), self.head_size)
        if self.config.qk_norm is not None:
            q, k, v = qkv.split(heads, dim=1)
            qkv = torch.cat((self.q_norm(q), self.k_norm(k), v), dim=1)
        if isinstance(position, Rotary) and context is not None:
            qk, v = qkv.split((heads[0] + heads[1], heads[2]), dim=1)
            q, k = rotate(qk, context.rotary[position, self.head_size]).split(heads[:2], dim=1)
            return q, k, v
        q, k, v = qkv.split(heads, dim=1)
        return q, k, v

    def score(self, context: Context) -> Score:
        """How scores are made of queries and keys, in this pass."""
        position = self.config.position
        return Score(
            window=self.config.window,
            scale=position.scale(self.head_size) if isinstance(position, Disentangled) else None,
            causal=self.config.causal,
            dropout=self.config.dropout if self.training else 0.0,
            edit=self._edit(context, self._bias()),
        )

    def forward(
        self, x: Float[Tensor, "tokens size"], context: Context, seen: Float[Tensor, "tokens size"] | None = None
    ) -> Float[Tensor, "tokens size"]:
        """What `x` gathers from `seen`, whose keys and values it sees; None is `x` itself."""
        q, k, v = self.queries_keys_values(x, context, seen)
        score = self.score(context)
        if self.everywhere is not None and context.everywhere is not None:
            mixed = outside(self.everywhere, x, (q, k, v), score, context.everywhere, context)
        elif context.beside is not None:
            mixed = attention_beside(q, k, v, context.ragged, context.beside, score, context.backend)
        elif context.pairs is not None:
            mixed = attention_of_pairs(q, k, v, context.ragged, context.pairs, score)
        else:
            keys = context.ragged
            if (visible := context.visible) is not None:
                k, v, keys = k[visible.rows], v[visible.rows], visible.ragged
            mixed = attention(q, k, v, context.ragged, keys, score, context.backend)
        return self.dropout(self.out(mixed.flatten(1)))

    def _bias(self) -> Float[Tensor, " outs"] | None:
        """Of queries, keys and values; zero where keys alone have none."""
        if self.query_bias is None or self.value_bias is None:
            return self.qkv.bias
        return torch.cat((self.query_bias, torch.zeros_like(self.value_bias), self.value_bias))

    def _project(self, x: Tensor, seen: Tensor | None, bias: Tensor | None) -> Float[Tensor, "tokens outs"]:
        if seen is None:
            return self.qkv(x) if bias is self.qkv.bias else F.linear(x, self.qkv.weight, bias)
        sizes = [self.heads * self.head_size, 2 * self.kv_heads * self.head_size]
        biases = (None, None) if bias is None else bias.split(sizes)
        parts = zip((x, seen), self.qkv.weight.split(sizes), biases, strict=True)
        return torch.cat([F.linear(*part) for part in parts], dim=1)

    def _edit(self, context: Context, bias: Tensor | None) -> Edit | None:
        match self.config.position:
            case Alibi():
                return Distance(context.slopes[self.heads])
            case Bucketed(max_distance=furthest, first_apart=apart):
                assert context.relative is not None
                return Bucket(context.relative, furthest, apart)
            case Disentangled():
                assert context.relative is not None
                assert self.relative is not None
                inner = 2 * self.heads * self.head_size
                weight, biases = self.qkv.weight[:inner], None if bias is None else bias[:inner]
                return self.relative.scores(context.relative, context.ragged.longest, weight, biases)
            case _:
                return None

    def flops(self, lengths: tuple[int, ...], everywhere: tuple[int, ...] = ()) -> float:
        """Matrix-multiply FLOPs of one forward pass over sequences of these lengths.

        A query meets as many keys as its window is wide, at the ends of a sequence, too. Causal attention without a
        window meets all keys, as kernels compute it that mask half of them.

        Args:
            everywhere: global tokens of each sequence; none unless given.
        """
        config, inner = self.config, self.heads * self.head_size
        sides = 1 if config.causal else 2
        counts = everywhere if self.everywhere is not None and any(everywhere) else (0,) * len(lengths)
        pairs = sum(
            n * (n if config.window is None else min(n, sides * config.window + 1 + count)) + count * n
            for n, count in zip(lengths, counts, strict=True)
        )
        products = 2.0 * sum(lengths) * (self.qkv.weight.numel() + self.out.weight.numel()) + 4.0 * pairs * inner
        if self.everywhere is not None and any(counts):
            products += self.everywhere.flops(sum(lengths), sum(counts))
        return products + (0.0 if self.relative is None else self.relative.flops(lengths))
