"""Windowed attention with global tokens (Longformer, arXiv 2004.05150).

A local query sees the keys in its window and the global keys of its sequence, in one softmax, each key
once. A global query sees the whole sequence, with queries, keys and values of other projections.
`reference` is the first sentence as a mask over all pairs. The other way takes sequences of equal
length and equal number of global tokens together, and cuts long ones into blocks: a block of queries
meets the global keys and the keys in its reach, so time and memory grow with the length alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bothways.ops.attention import BY_LENGTH, REFERENCE, Backend, Score, attention, blocks, visible
from bothways.ragged import Ragged

Three = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Globals:
    """The global tokens of a packed batch; there is at least one.

    Attributes:
        mask: bool [tokens].
        rows: int64 [globals], where they stand in the batch.
        ragged: how many each sequence has, as boundaries of `rows`.
    """

    mask: Bool[Tensor, " tokens"]
    rows: Int[Tensor, " globals"]
    ragged: Ragged

    @classmethod
    def of(cls, mask: Bool[Tensor, " tokens"], ragged: Ragged) -> Globals | None:
        """From a mask, which is read on the host; None where it marks nothing."""
        rows = np.flatnonzero(mask.cpu().numpy())
        if not len(rows):
            return None
        counts = np.diff(np.searchsorted(rows, ragged.offsets)).tolist()
        return cls(mask, torch.from_numpy(rows).to(mask.device), Ragged.of(counts).to(mask.device))


def global_attention(
    local: Three, wide: Three, everywhere: Globals, ragged: Ragged, score: Score, backend: Backend | None = None
) -> Float[Tensor, "tokens heads size"]:
    """Local rows from `local`; the rows of global tokens from `wide`, over their whole sequences.

    Args:
        local: queries, keys and values [tokens, heads, size]; global tokens are keys and values here, too.
        wide: queries of the global tokens [globals, heads, size], keys and values of all [tokens, heads, size].
        score: of the local rows; the global ones have its scale and dropout.
        backend: `REFERENCE` or `BY_LENGTH`; None is the latter, and the dispatcher's choice for the global rows.

    Raises:
        ValueError: another backend, or a score that is causal or edited.
    """
    if backend not in (None, REFERENCE, BY_LENGTH) or score.causal or score.edit is not None:
        name = "default" if backend is None else backend.name
        raise ValueError(f"attention with global tokens cannot be served by the backend '{name}' with {score}")
    near = (_reference if backend is REFERENCE else _by_length)(*local, everywhere, ragged, score)
    far = attention(*wide, everywhere.ragged, ragged, replace(score, window=None), backend)
    return near.index_copy(0, everywhere.rows, far)


def _reference(q: Tensor, k: Tensor, v: Tensor, everywhere: Globals, ragged: Ragged, score: Score) -> Tensor:
    """The definition: one SDPA call over all pairs, with a mask that leaves the visible ones."""
    inside = visible(ragged, ragged, Score())
    mask = visible(ragged, ragged, score) | (inside & everywhere.mask)
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    return _sdpa(q, k, v, mask, score).squeeze(0).transpose(0, 1)


def _by_length(q: Tensor, k: Tensor, v: Tensor, everywhere: Globals, ragged: Ragged, score: Score) -> Tensor:
    """Sequences of equal length and equal number of global tokens at a time."""
    kinds = list(zip(ragged.lengths, everywhere.ragged.lengths, strict=True))
    groups = Counter(kinds)  # in the order in which they first appear
    place = {kind: number for number, kind in enumerate(groups)}
    order = sorted(range(len(kinds)), key=lambda i: place[kinds[i]])
    columns, mask, back = ragged.positions[everywhere.rows], everywhere.mask, None
    if order != list(range(len(kinds))):
        rows = ragged.take(order)[1]
        back = torch.empty_like(rows).scatter_(0, rows, torch.arange(len(rows), device=rows.device))
        columns = columns[everywhere.ragged.take(order)[1]]
        q, k, v, mask = q[rows], k[rows], v[rows], mask[rows]
    sizes = [length * n for (length, _), n in groups.items()]
    counts = [count * n for (_, count), n in groups.items()]
    parts = zip(groups.items(), *(x.split(sizes) for x in (q, k, v, mask)), columns.split(counts), strict=True)
    out = []
    for ((length, count), n), *given, marked, numbers in parts:
        if length:
            one, two, three = (x.unflatten(0, (n, length)).transpose(1, 2) for x in given)
            mixed = _local(one, two, three, marked.view(n, length), numbers.view(n, count), score)
            out.append(mixed.transpose(1, 2).flatten(0, 1))
    packed = torch.cat(out) if len(out) > 1 else out[0]
    return packed if back is None else packed[back]


def _local(
    q: Float[Tensor, "n heads length size"],
    k: Float[Tensor, "n heads length size"],
    v: Float[Tensor, "n heads length size"],
    mask: Bool[Tensor, "n length"],
    columns: Int[Tensor, "n globals"],
    score: Score,
) -> Float[Tensor, "n heads length size"]:
    """Sequences of one length and one number of global tokens: `mask` marks them, `columns` are their positions.

    The global keys stand first, and are left out of the window, which would count them twice.
    """
    if score.window is None or q.shape[2] <= score.window + 1:
        return _sdpa(q, k, v, None, score)
    index = columns[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[3])
    global_k, global_v = k.gather(2, index), v.gather(2, index)
    out = []
    for part, near_k, near_v, first_query, first_key in blocks(q, k, v, score.window):
        rows = torch.arange(first_query, first_query + part.shape[2], device=q.device)
        reach = slice(first_key, first_key + near_k.shape[2])
        near = score.sees(rows, torch.arange(reach.start, reach.stop, device=q.device))
        assert near is not None  # there is a window
        once = near & ~mask[:, None, reach]
        seen = torch.cat((once.new_ones(*once.shape[:2], index.shape[2]), once), dim=2)[:, None]
        out.append(_sdpa(part, torch.cat((global_k, near_k), dim=2), torch.cat((global_v, near_v), dim=2), seen, score))
    return torch.cat(out, dim=2) if len(out) > 1 else out[0]


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, score: Score) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=score.dropout, scale=score.scale)
