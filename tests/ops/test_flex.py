"""What FlexAttention is handed, and what is kept of it."""

from __future__ import annotations

import gc
import weakref

from bothways.ops.attention import Score
from bothways.ops.flex import _BLOCKS, _blocks
from bothways.ragged import Ragged


def test_blocks_are_kept_as_long_as_both_packings() -> None:
    """Else keys that come later, at the same address, would get another packing's blocks."""
    queries, keys = Ragged.of([3, 5]), Ragged.of([4, 2])
    assert _blocks(queries, keys, Score()) is _blocks(queries, keys, Score())
    assert _blocks(queries, keys, Score()) is not _blocks(queries, keys, Score(window=1, causal=True))
    _blocks(queries, queries, Score())
    assert len(_BLOCKS[queries]) == 2
    del keys
    gc.collect()
    assert len(_BLOCKS[queries]) == 1
    gone = weakref.ref(queries)
    del queries
    gc.collect()
    assert gone() is None
