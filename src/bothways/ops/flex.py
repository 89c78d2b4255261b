"""Attention with edited scores on CUDA, by torch's FlexAttention: nothing of size queries times keys is ever stored."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, and_masks, create_block_mask, flex_attention

from bothways.ragged import Ragged

if TYPE_CHECKING:
    from bothways.ops.attention import Score

# The blocks that a packing and a kind of window touch: found once, used by every layer.
_Known = dict[tuple[int | None, bool, bool], BlockMask]
_BLOCKS: WeakKeyDictionary[Ragged, WeakKeyDictionary[Ragged, _Known]] = WeakKeyDictionary()


def flex(q: Tensor, k: Tensor, v: Tensor, queries: Ragged, keys: Ragged, score: Score) -> Tensor:
    """One FlexAttention call over the packed tokens; compiled on CUDA, plain (and slow) elsewhere."""
    rows = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    edit = None if score.edit is None else score.edit.flex(q, k, queries, keys)
    run = _compiled() if q.is_cuda else flex_attention
    out: Any = run(*rows, score_mod=edit, block_mask=_blocks(queries, keys, score), scale=score.scale)
    return out.squeeze(0).transpose(0, 1)


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=True)


def _blocks(queries: Ragged, keys: Ragged, score: Score) -> BlockMask:
    known = _BLOCKS.setdefault(queries, WeakKeyDictionary()).setdefault(keys, {})
    kind = (score.window, score.causal, score.own)
    if kind not in known:
        device = str(queries.starts.device)
        seen = _seen(queries, keys, score.window, score.causal)
        if score.own:
            seen = and_masks(seen, _owned(queries, keys))
        known[kind] = create_block_mask(
            seen, None, None, queries.tokens, keys.tokens, device=device, _compile=queries.starts.is_cuda
        )
    return known[kind]


def _owned(queries: Ragged, keys: Ragged) -> Callable[..., Tensor]:
    """As `owned` of `ops.attention`, by numbers in the packed batch."""
    from bothways.ops.attention import ranks

    rows, columns = ranks(queries, keys)
    return lambda batch, head, row, column: (columns[column] < 0) | (columns[column] == rows[row])


def _seen(queries: Ragged, keys: Ragged, window: int | None, causal: bool) -> Callable[..., Tensor]:
    """Whether a query sees a key, by their numbers in the packed batch."""
    of_row, of_column = queries.segments, keys.segments
    row_at, column_at = queries.positions, keys.positions
    furthest = max(queries.longest, keys.longest) if window is None else window
    last = 0 if causal else furthest
    return lambda batch, head, row, column: (
        (of_row[row] == of_column[column])
        & (column_at[column] - row_at[row] <= last)
        & (row_at[row] - column_at[column] <= furthest)
    )
