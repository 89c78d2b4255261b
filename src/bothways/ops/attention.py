"""Attention over packed sequences: one plain definition, and backends that must equal it.

A query sees the keys of its own sequence, within the window if there is one. `reference` is that
sentence as a mask; `by_length`, `by_sequence`, `varlen` and `flex` compute the same without touching other pairs. Each
backend states what it can do, and `attention` takes the first that can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bothways.ops.graphs import outside
from bothways.ops.relative import ScoreMod
from bothways.ragged import Ragged

# Keys of a window are handed to SDPA in pieces of at least this many tokens.
_PIECE = 64
# Added scores of one SDPA call: more queries than make this many numbers are taken in turn.
_ADDED = 1 << 22


@runtime_checkable
class Edit(Protocol):
    """What is added to the scaled scores, from positions and, where it needs them, queries and keys."""

    def dense(
        self,
        q: Float[Tensor, "count heads rows size"],
        k: Float[Tensor, "count heads columns size"],
        rows: Int[Tensor, " rows"],
        columns: Int[Tensor, " columns"],
    ) -> Float[Tensor, "_ heads rows columns"]:
        """For queries at positions `rows` and keys at positions `columns`; the first axis may be 1."""
        ...

    def flex(
        self, q: Float[Tensor, "queries heads size"], k: Float[Tensor, "keys heads size"], queries: Ragged, keys: Ragged
    ) -> ScoreMod:
        """The same as a `score_mod` of FlexAttention: of a score, batch, head, and the packed rows of its query and key."""
        ...


@runtime_checkable
class Consecutive(Protocol):
    """An edit that is had faster where positions follow one another."""

    def consecutive(
        self,
        q: Float[Tensor, "count heads rows size"],
        k: Float[Tensor, "count heads columns size"],
        first_row: int,
        first_column: int,
    ) -> Float[Tensor, "_ heads rows columns"] | None:
        """`Edit.dense` for queries and keys at positions from these two on; None adds nothing."""
        ...


@dataclass(frozen=True)
class Score:
    """How scores are made of queries and keys.

    Attributes:
        window: a query sees keys at most this many positions away on either side; None sees all.
        causal: a query sees no key after its own position.
        scale: factor of the dot product; None is 1/sqrt(head size).
        dropout: probability that an attention weight is dropped.
        edit: what is added to the scaled dot product; None adds nothing.
        own: the last keys of a sequence are its queries' own, one for each in their order, and no other query sees them.
    """

    window: int | None = None
    causal: bool = False
    scale: float | None = None
    dropout: float = 0.0
    edit: Edit | None = None
    own: bool = False

    def sees(self, rows: Int[Tensor, " rows"], columns: Int[Tensor, " columns"]) -> Bool[Tensor, "rows columns"] | None:
        """Which positions see which, within one sequence; None where all see all."""
        if self.window is None and not self.causal:
            return None
        ahead = columns[None, :] - rows[:, None]
        near = ahead <= (0 if self.causal or self.window is None else self.window)
        return near if self.window is None else near & (ahead >= -self.window)


@dataclass(frozen=True)
class Backend:
    """A way to compute attention: its name, whether it can serve a call, and the computation.

    Attributes:
        inside: whether a compiled graph may hold it: it asks nothing of the lengths on the host.
    """

    name: str
    can: Callable[[Tensor, Ragged, Ragged, Score], bool]
    run: Callable[[Tensor, Tensor, Tensor, Ragged, Ragged, Score], Tensor]
    inside: bool = False


def attention(
    q: Float[Tensor, "queries heads size"],
    k: Float[Tensor, "keys kv_heads size"],
    v: Float[Tensor, "keys kv_heads size"],
    queries: Ragged,
    keys: Ragged,
    score: Score,
    backend: Backend | None = None,
) -> Float[Tensor, "queries heads size"]:
    """Softmax attention of packed queries over packed keys, sequence by sequence.

    Sequence i of `queries` attends to sequence i of `keys`; their lengths may differ. A query whose
    sequence has no keys gives zeros. Fewer heads of keys and values than of queries serve equal
    groups of these (arXiv 2305.13245). Without a `backend`, the first of `BACKENDS` that can serve
    the call does.

    Raises:
        ValueError: the two packings have different numbers of sequences, or `backend` cannot serve.
    """
    k, v = of_heads(k, q.shape[1]), of_heads(v, q.shape[1])
    if queries.sequences != keys.sequences:
        raise ValueError(f"{queries.sequences} query sequences but {keys.sequences} key sequences")
    chosen = backend or next(one for one in BACKENDS if one.can(q, queries, keys, score))
    if not chosen.can(q, queries, keys, score):
        raise ValueError(f"the attention backend '{chosen.name}' cannot serve {q.dtype} on {q.device} with {score}")
    if chosen.inside:
        return chosen.run(q, k, v, queries, keys, score)
    return outside(chosen.run, q, k, v, queries, keys, score)


def _reference(q: Tensor, k: Tensor, v: Tensor, queries: Ragged, keys: Ragged, score: Score) -> Tensor:
    """The definition: one SDPA call over all pairs, with a mask that leaves the visible ones."""
    return attention_by_mask(q, k, v, queries, keys, score, visible(queries, keys, score))


def attention_by_mask(
    q: Float[Tensor, "queries heads size"],
    k: Float[Tensor, "keys kv_heads size"],
    v: Float[Tensor, "keys kv_heads size"],
    queries: Ragged,
    keys: Ragged,
    score: Score,
    mask: Bool[Tensor, "queries keys"],
) -> Float[Tensor, "queries heads size"]:
    """Each query over the keys that its row of `mask` holds for. One that sees nothing gives zeros."""
    k, v = of_heads(k, q.shape[1]), of_heads(v, q.shape[1])
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    added = mask
    if score.edit is not None:
        # a query that sees nothing is given all keys here, and zero below: a softmax of nothing is no number
        hidden = ~mask & mask.any(dim=1, keepdim=True)
        added = score.edit.dense(q, k, queries.positions, keys.positions).masked_fill(hidden, -torch.inf)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=added, dropout_p=score.dropout, scale=score.scale)
    return (out * mask.any(dim=1)[:, None]).squeeze(0).transpose(0, 1)


def of_heads(x: Float[Tensor, "keys kv_heads size"], heads: int) -> Float[Tensor, "keys heads size"]:
    """Keys or values for so many heads of queries, equal groups of which share one."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def visible(queries: Ragged, keys: Ragged, score: Score) -> Bool[Tensor, "queries keys"]:
    """Which key each query sees, as a dense mask over the whole batch."""
    mask = queries.segments[:, None] == keys.segments[None, :]
    if score.own:
        mask &= owned(*ranks(queries, keys))
    near = score.sees(queries.positions, keys.positions)
    return mask if near is None else mask & near


def ranks(queries: Ragged, keys: Ragged) -> tuple[Int[Tensor, " queries"], Int[Tensor, " keys"]]:
    """The number of each query in its sequence; and of each key, as whose own it is, below 0 where it is nobody's."""
    of_queries, of_keys = queries.segments, keys.segments
    shared = keys.starts.diff() - queries.starts.diff()
    rows = torch.arange(queries.tokens, device=of_queries.device) - queries.starts[of_queries]
    columns = torch.arange(keys.tokens, device=of_keys.device) - keys.starts[of_keys]
    return rows, columns - shared[of_keys]


def owned(rows: Int[Tensor, " rows"], columns: Int[Tensor, " columns"]) -> Bool[Tensor, "rows columns"]:
    """Which query sees which key of its sequence, by `ranks`."""
    return (columns < 0)[None, :] | (columns[None, :] == rows[:, None])


def _by_length(q: Tensor, k: Tensor, v: Tensor, queries: Ragged, keys: Ragged, score: Score) -> Tensor:
    """One dense SDPA call for each pair of lengths that occurs; nothing is padded.

    Sequences that already lie by length (as our packer and `encode` leave them) are taken where they
    lie; others are gathered into that order first.
    """
    pairs = list(zip(queries.lengths, keys.lengths, strict=True))
    runs = _runs(pairs)
    if len(runs) == len(set(pairs)):
        return _grouped(q, k, v, runs, score)
    order = sorted(range(len(pairs)), key=pairs.__getitem__)
    _, rows = queries.take(order)
    back = torch.empty_like(rows).scatter_(0, rows, torch.arange(len(rows), device=rows.device))
    others = rows if keys is queries else keys.take(order)[1]
    return _grouped(q[rows], k[others], v[others], _runs([pairs[i] for i in order]), score)[back]


def _runs(pairs: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Neighbouring equal pairs of lengths, as (query length, key length, count)."""
    runs: list[tuple[int, int, int]] = []
    for pair in pairs:
        if runs and runs[-1][:2] == pair:
            runs[-1] = (*pair, runs[-1][2] + 1)
        else:
            runs.append((*pair, 1))
    return runs


def _grouped(q: Tensor, k: Tensor, v: Tensor, runs: list[tuple[int, int, int]], score: Score) -> Tensor:
    heads, size = q.shape[1:]
    of_queries, of_keys = [a * n for a, _, n in runs], [b * n for _, b, n in runs]
    out = []
    for (a, b, n), one, two, three in zip(runs, q.split(of_queries), k.split(of_keys), v.split(of_keys), strict=True):
        if a == 0:
            continue
        if b == 0:
            out.append(one * 0)
            continue
        rows = one.reshape(n, a, heads, size).transpose(1, 2)
        keys = two.reshape(n, b, heads, size).transpose(1, 2)
        values = three.reshape(n, b, heads, size).transpose(1, 2)
        out.append(_windowed(rows, keys, values, score).transpose(1, 2).reshape(n * a, heads, size))
    if not out:
        return q * 0  # empty slots alone
    return torch.cat(out) if len(out) > 1 else out[0]


def _windowed(q: Tensor, k: Tensor, v: Tensor, score: Score) -> Tensor:
    """SDPA of equal-length sequences [count, heads, length, size], the window respected."""
    if score.window is None or q.shape[2] <= score.window + 1:
        return _near(q, k, v, 0, 0, replace(score, window=None))
    out = [_near(*block, score) for block in blocks(q, k, v, score.window)]
    return torch.cat(out, dim=2) if len(out) > 1 else out[0]


def blocks(q: Tensor, k: Tensor, v: Tensor, window: int) -> Iterator[tuple[Tensor, Tensor, Tensor, int, int]]:
    """Blocks of queries, the keys and values in their reach, and the positions of the first query and the first key.

    A long sequence [count, heads, length, size] is cut into blocks of queries, each with just the
    pieces of keys in its reach, so the work grows with the length and not with its square. Pieces are
    split once and joined per block: the gradient of a split is one concatenation, where overlapping
    slices would each write a gradient of the full length.
    """
    piece = max(window, _PIECE)
    if q.shape[2] <= 3 * piece:
        yield q, k, v, 0, 0
        return
    pieces_k, pieces_v = k.split(piece, dim=2), v.split(piece, dim=2)
    for i, block in enumerate(q.split(2 * piece, dim=2)):
        first = max(0, 2 * i - 1)
        near = slice(first, 2 * i + 3)
        yield block, torch.cat(pieces_k[near], dim=2), torch.cat(pieces_v[near], dim=2), 2 * i * piece, first * piece


def _near(q: Tensor, k: Tensor, v: Tensor, first_query: int, first_key: int, score: Score) -> Tensor:
    """SDPA of queries and keys whose positions begin at these numbers; scores that are edited, a few sequences at a time."""
    if score.edit is None:
        if score.causal and score.window is None:  # SDPA's own mask, which leaves out the work that it hides
            return F.scaled_dot_product_attention(q, k, v, dropout_p=score.dropout, scale=score.scale, is_causal=True)
        return _one(q, k, v, first_query, first_key, score)
    rows = max(1, _ADDED // (q.shape[1] * k.shape[2]))
    if (together := max(1, rows // q.shape[2])) < q.shape[0]:
        parts = zip(q.split(together), k.split(together), v.split(together), strict=True)
        return torch.cat([_near(*part, first_query, first_key, score) for part in parts])
    if rows >= q.shape[2]:
        return _one(q, k, v, first_query, first_key, score)
    blocks = enumerate(q.split(rows, dim=2))
    if torch.is_grad_enabled():
        return torch.cat([_one(block, k, v, first_query + i * rows, first_key, score) for i, block in blocks], dim=2)
    # written at once: small results that are kept between large scores that are not leave an allocator with holes it cannot use
    out = torch.empty_like(q)
    for i, block in blocks:
        out[:, :, i * rows : (i + 1) * rows] = _one(block, k, v, first_query + i * rows, first_key, score)
    return out


def _one(q: Tensor, k: Tensor, v: Tensor, first_query: int, first_key: int, score: Score) -> Tensor:
    rows = torch.arange(first_query, first_query + q.shape[2], device=q.device)
    columns = torch.arange(first_key, first_key + k.shape[2], device=q.device)
    mask = owned(rows, columns - (k.shape[2] - q.shape[2])) if score.own else score.sees(rows, columns)
    match score.edit:
        case None:
            added = None
        case Consecutive() as edit:
            added = edit.consecutive(q, k, first_query, first_key)
        case edit:
            added = edit.dense(q, k, rows, columns)
    if added is not None:
        mask = added if mask is None else added.masked_fill(~mask, -torch.inf)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=score.dropout, scale=score.scale)


def _by_sequence(q: Tensor, k: Tensor, v: Tensor, queries: Ragged, keys: Ragged, score: Score) -> Tensor:
    """The definition, one sequence after the other: for positions that are not the numbers of rows."""
    out = []
    for (a, b), (c, d) in zip(pairwise(queries.offsets), pairwise(keys.offsets), strict=True):
        if c == d:
            out.append(q[a:b] * 0)
        elif a < b:
            out.append(_reference(q[a:b], k[c:d], v[c:d], alone(queries, a, b), alone(keys, c, d), score))
    return torch.cat(out) if out else q * 0


def alone(ragged: Ragged, begin: int, end: int) -> Ragged:
    """One sequence, at the positions that it has."""
    return replace(Ragged.of([end - begin]).to(ragged.starts.device), positions=ragged.positions[begin:end])


def _varlen(q: Tensor, k: Tensor, v: Tensor, queries: Ragged, keys: Ragged, score: Score) -> Tensor:
    """torch's own variable-length flash attention (CUDA, half precision)."""
    from torch.nn.attention.varlen import varlen_attn  # imports CUDA machinery: only where it is used

    reach = -1 if score.window is None else score.window
    return varlen_attn(
        q,
        k,
        v,
        queries.starts,
        keys.starts,
        queries.longest,
        keys.longest,
        scale=score.scale,
        window_size=(reach, 0 if score.causal else reach),
    )  # type: ignore[return-value]


def _varlen_can(q: Tensor, queries: Ragged, keys: Ragged, score: Score) -> bool:
    plain = score.dropout == 0.0 and score.edit is None and not score.own and (not _by_position(score) or queries is keys)
    return q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and q.shape[-1] % 8 == 0 and plain


def _flex_can(q: Tensor, queries: Ragged, keys: Ragged, score: Score) -> bool:
    return q.is_cuda and score.dropout == 0.0 and min(queries.tokens, keys.tokens) > 0


def _flex(q: Tensor, k: Tensor, v: Tensor, queries: Ragged, keys: Ragged, score: Score) -> Tensor:
    from bothways.ops.flex import flex  # imports torch's compiler: only where it is used

    return flex(q, k, v, queries, keys, score)


def _by_length_can(q: Tensor, queries: Ragged, keys: Ragged, score: Score) -> bool:
    return not _by_position(score) or queries is keys


def _by_position(score: Score) -> bool:
    """Whether positions matter, which between different packings are not the row numbers."""
    return score.window is not None or score.causal or score.edit is not None


REFERENCE = Backend("reference", lambda q, queries, keys, score: True, _reference, inside=True)
BY_LENGTH = Backend("by_length", _by_length_can, _by_length)
BY_SEQUENCE = Backend("by_sequence", lambda q, queries, keys, score: True, _by_sequence)
VARLEN = Backend("varlen", _varlen_can, _varlen, inside=True)
FLEX = Backend("flex", _flex_can, _flex)
# In the order they are asked. The last can always; `REFERENCE` is for who names it: tests
BACKENDS = (VARLEN, FLEX, BY_LENGTH, BY_SEQUENCE)
