"""What a reference is: a tiny published architecture, and where to find its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from tests.builders import HEADS, INNER, LAYERS, LONGEST, SIZE, VOCAB
from torch import nn

LABELS = 3
# the spelling of most configs
SHAPE = {"vocab_size": VOCAB, "hidden_size": SIZE, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
BERT_SHAPE = {**SHAPE, "intermediate_size": INNER, "max_position_embeddings": LONGEST}


@dataclass(frozen=True, eq=False)
class Case:
    """A published architecture: its family, one of the heads that `architecture` knows, and config changes.

    With `global_tokens`, some tokens of its texts see everything and are seen by all (Longformer).
    """

    family: str
    head: str
    changes: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    global_tokens: bool = False

    def __str__(self) -> str:
        return "-".join(part for part in (self.family, self.head, self.note) if part)


@dataclass(frozen=True, eq=False)
class Reference:
    """A family on their side.

    Attributes:
        settings: the tiny config.
        embedding: the module, below the body, whose output enters the first layer; of several, apart by |, the first there is.
        layers: the list of layers, below the body; `a.*.b` for the lists `b` of all in the list `a`.
        types: how many token types its texts have.
        sdpa: whether the class has attention by SDPA; else it is run with its own.
        within: what its forward pass runs in.
        rows: the length their rows are padded to; None: that of the longest text.
        after: modules below the body, where there, whose output is that of the layer of this number (the embedding is 0).
        classes: by head, where it is restated here and not in `transformers`: built from a dict of settings.
    """

    settings: Mapping[str, Any]
    embedding: str = "embeddings"
    layers: str = "encoder.layer"
    types: int = 1
    pad_id: int = 0
    sdpa: bool = True
    within: Callable[[], AbstractContextManager[object]] = nullcontext
    rows: int | None = None
    after: Mapping[int, str] = field(default_factory=dict)
    classes: Mapping[str, type[nn.Module]] = field(default_factory=dict)
