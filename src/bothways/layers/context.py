"""What every layer of one forward pass shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from bothways.layers.position import Rotary
from bothways.ops.attention import Backend
from bothways.ops.beside import Beside
from bothways.ops.global_attention import Globals
from bothways.ops.pairs import Pairs
from bothways.ragged import Ragged, Visible


@dataclass(frozen=True, eq=False)
class Context:
    """Made once a forward pass.

    Attributes:
        ragged: the boundaries of the hidden states.
        rotary: cosine and sine [tokens, head size / 2] for each (Rotary, head size) in use.
        slopes: of ALiBi [heads], for each number of heads in use.
        relative: the table of relative positions that all layers share, where there is one.
        everywhere: the tokens that see all of their sequence and are seen by all of it; None: there are none.
        visible: the tokens whose keys and values attention sees; None: all.
        beside: the tokens that look on, which no others see; None: there are none.
        pairs: which token sees which, each pair by itself; None: all.
        backend: the attention backend to use; None lets the dispatcher choose.
    """

    ragged: Ragged
    rotary: Mapping[tuple[Rotary, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    slopes: Mapping[int, Tensor] = field(default_factory=dict)
    relative: Tensor | None = None
    everywhere: Globals | None = None
    visible: Visible | None = None
    beside: Beside | None = None
    pairs: Pairs | None = None
    backend: Backend | None = None
