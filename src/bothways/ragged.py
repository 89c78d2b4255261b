"""Where each sequence of a packed batch begins and ends; and the batch itself.

Tokens of all sequences lie one after another in `[tokens, ...]` tensors. `Ragged` holds the
boundaries. It is made on the CPU, from lengths that the packer knows, and keeps those lengths on
the host, so nothing downstream has to read a device to learn a shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bothways.errors import InputError


@dataclass(frozen=True)
class Capacity:
    """What every batch of a run is brought to by filler, so that no shape ever changes.

    Attributes:
        slots: sequences of a batch, empty ones among them.
        longest: the bound of their lengths.
    """

    tokens: int
    slots: int
    longest: int


@dataclass(frozen=True, eq=False)
class Ragged:
    """The boundaries of the sequences of a packed batch.

    Attributes:
        starts: int32 [sequences + 1], the first token of each sequence, then the end of the last.
        positions: int64 [tokens], each token's index within its sequence, from 0.
        lengths: tokens of each sequence, on the host; a zero is an empty slot.
        longest: an upper bound of `lengths` (a capacity where a run fixes one).
        given: sequences that were given; those behind them are filler, which no figure counts. None: all.
    """

    starts: Int[Tensor, " boundaries"]
    positions: Int[Tensor, " tokens"]
    lengths: tuple[int, ...]
    longest: int
    given: int | None = None

    @classmethod
    def of(cls, lengths: Sequence[int], longest: int | None = None, given: int | None = None) -> Ragged:
        """Boundaries for sequences of these lengths.

        Raises:
            ValueError: a negative length, or `longest` below the longest sequence.
        """
        lengths = tuple(int(length) for length in lengths)
        most = max(lengths, default=0)
        if min(lengths, default=0) < 0 or (longest is not None and longest < most):
            raise ValueError(f"lengths {lengths[:8]} do not fit longest={longest}")
        starts = np.zeros(len(lengths) + 1, np.int32)
        np.cumsum(lengths, out=starts[1:])
        positions = np.arange(starts[-1], dtype=np.int64) - np.repeat(starts[:-1], lengths)
        return cls(torch.from_numpy(starts), torch.from_numpy(positions), lengths, most if longest is None else longest, given)

    @property
    def tokens(self) -> int:
        return self.positions.shape[0]

    @property
    def sequences(self) -> int:
        return len(self.lengths)

    @property
    def real(self) -> tuple[int, ...]:
        """`lengths` without filler: what budgets, speeds and costs are counted by."""
        return self.lengths[: self.given]

    @property
    def filler(self) -> int:
        """Tokens of filler, the last of all."""
        return self.tokens - sum(self.real)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """`starts` on the host."""
        return (0, *accumulate(self.lengths))

    @property
    def segments(self) -> Int[Tensor, " tokens"]:
        """The number of the sequence each token belongs to, int64 [tokens]."""
        numbers = torch.arange(self.sequences, device=self.starts.device)
        return numbers.repeat_interleave(self.starts.diff().long(), output_size=self.tokens)

    def take(self, order: Sequence[int]) -> tuple[Ragged, Int[Tensor, " taken"]]:
        """The boundaries of these sequences in this order, and the rows that gather their tokens."""
        taken = Ragged.of([self.lengths[i] for i in order])
        rows = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in order]
        index = torch.from_numpy(np.concatenate(rows) if rows else np.zeros(0, np.int64))
        return taken.to(self.starts.device), index.to(self.starts.device)

    def beginnings(self, shorter: Ragged) -> Int[Tensor, " tokens"]:
        """The rows of each sequence's first tokens, as many as `shorter` has of it."""
        return self.starts[shorter.segments] + shorter.positions

    def to(self, device: torch.device | str) -> Ragged:
        if self.starts.device == torch.device(device):
            return self
        return replace(
            self,
            starts=self.starts.to(device, non_blocking=True),
            positions=self.positions.to(device, non_blocking=True),
        )


@dataclass(frozen=True, eq=False)
class Visible:
    """Some tokens of a packed batch, which alone are seen by attention.

    Attributes:
        rows: int64 [visible], ascending.
        ragged: their boundaries; `positions` are those they have in the batch.
    """

    rows: Int[Tensor, " visible"]
    ragged: Ragged

    @classmethod
    def of(cls, mask: Bool[np.ndarray, " tokens"], ragged: Ragged) -> Visible:
        """The tokens that a mask on the host holds for, of a batch with these boundaries."""
        owners = np.repeat(np.arange(ragged.sequences), ragged.lengths)[mask]
        counts = np.bincount(owners, minlength=ragged.sequences)
        rows = torch.from_numpy(np.flatnonzero(mask))
        return cls(rows, replace(Ragged.of(counts.tolist()), positions=ragged.positions[rows]))

    def to(self, device: torch.device | str) -> Visible:
        return replace(self, rows=self.rows.to(device, non_blocking=True), ragged=self.ragged.to(device))


@dataclass(frozen=True, eq=False)
class Batch:
    """The encoder's input: packed token ids and their boundaries. A change returns a new one.

    Attributes:
        ids: int64 [tokens].
        ragged: the boundaries.
        types: int64 [tokens], token types (segments) of sentence pairs; None means all 0.
        samples: the data set's number of each sequence, where there is one.
        global_mask: bool [tokens], the tokens that see their whole sequence and are seen by all of it, in
            layers that have such tokens (Longformer); None means there are none.
    """

    ids: Int[Tensor, " tokens"]
    ragged: Ragged
    types: Int[Tensor, " tokens"] | None = None
    samples: tuple[int, ...] | None = None
    global_mask: Bool[Tensor, " tokens"] | None = None

    @classmethod
    def of(
        cls,
        sequences: Sequence[Sequence[int] | np.ndarray],
        types: Sequence[Sequence[int] | np.ndarray] | None = None,
        samples: Sequence[int] | None = None,
        global_mask: Sequence[Sequence[bool] | np.ndarray] | None = None,
    ) -> Batch:
        """Pack sequences of token ids, in the order given.

        Raises:
            InputError: token types, or global masks, whose lengths are not those of the ids.
        """
        lengths = [len(sequence) for sequence in sequences]
        if types is not None and [len(row) for row in types] != lengths:
            raise InputError("token types: each sequence needs exactly as many types as ids")
        if global_mask is not None and [len(row) for row in global_mask] != lengths:
            raise InputError("global_mask: each sequence needs exactly as many truth values as ids")
        return cls(
            ids=_packed(sequences),
            ragged=Ragged.of(lengths),
            types=None if types is None else _packed(types),
            samples=None if samples is None else tuple(int(sample) for sample in samples),
            global_mask=None if global_mask is None else _packed(global_mask).bool(),
        )

    @property
    def tokens(self) -> int:
        """Tokens that were given, without filler."""
        return self.ragged.tokens - self.ragged.filler

    @property
    def global_counts(self) -> tuple[int, ...]:
        """Global tokens of each sequence, read on the host."""
        if self.global_mask is None:
            return (0,) * self.ragged.sequences
        return tuple(int(one.sum()) for one in self.global_mask.cpu().split(list(self.ragged.lengths)))

    def with_ids(self, ids: Int[Tensor, " tokens"]) -> Batch:
        return replace(self, ids=ids)

    def with_first_global(self) -> Batch:
        """The first token of each sequence is a global one, and no other."""
        return replace(self, global_mask=self.ragged.positions == 0)

    def to_capacity(self, capacity: Capacity) -> Batch:
        """As many tokens and slots as the capacity has: behind the batch come sequences of filler, then empty slots.

        Filler is token 0, of type 0, and global nowhere. What was given keeps its rows.

        Raises:
            InputError: more than the capacity holds.
        """
        given, short = self.ragged.lengths, capacity.tokens - self.ragged.tokens
        whole, rest = divmod(max(short, 0), max(capacity.longest, 1))
        lengths = [*given, *[capacity.longest] * whole, *[rest] * (rest > 0)]
        empty = capacity.slots - len(lengths)
        if short < 0 or empty < 0 or self.ragged.longest > capacity.longest:
            found = f"{self.ragged.tokens} tokens in {len(given)} sequences of at most {self.ragged.longest}"
            raise InputError(f"a batch of {found} does not fit {capacity}")
        ragged = Ragged.of([*lengths, *[0] * empty], capacity.longest, len(self.ragged.real)).to(self.ids.device)
        return replace(
            self,
            ids=_extended(self.ids, short),
            ragged=ragged,
            types=None if self.types is None else _extended(self.types, short),
            global_mask=None if self.global_mask is None else _extended(self.global_mask, short),
        )

    def filled(self, length: int, filler: int) -> Batch:
        """Every sequence brought to `length` tokens by a token of this id, of type 0; empty ones stay empty."""
        ragged = Ragged.of([length if one else 0 for one in self.ragged.lengths], given=self.ragged.given).to(self.ids.device)
        rows = ragged.beginnings(self.ragged)
        ids = self.ids.new_full((ragged.tokens,), filler).index_copy(0, rows, self.ids)
        types = None if self.types is None else self.types.new_zeros(ragged.tokens).index_copy(0, rows, self.types)
        return replace(self, ids=ids, ragged=ragged, types=types)

    def to(self, device: torch.device | str) -> Batch:
        return replace(
            self,
            ids=self.ids.to(device, non_blocking=True),
            ragged=self.ragged.to(device),
            types=None if self.types is None else self.types.to(device, non_blocking=True),
            global_mask=None if self.global_mask is None else self.global_mask.to(device, non_blocking=True),
        )


@dataclass(frozen=True, eq=False)
class Encoded:
    """What an encoder returns.

    Attributes:
        hidden: [tokens, hidden_size], the last layer, normalised where the encoder does so.
        ragged: the boundaries of `hidden`.
        layers: where asked for, the embedding output and each layer's output, [tokens, hidden_size].
    """

    hidden: Float[Tensor, "tokens hidden"]
    ragged: Ragged
    layers: tuple[Float[Tensor, "tokens hidden"], ...] = ()

    def split(self) -> tuple[Float[Tensor, "length hidden"], ...]:
        """The hidden states of each sequence."""
        return self.hidden.split(list(self.ragged.lengths))


def _extended(tensor: Tensor, count: int) -> Tensor:
    return torch.cat((tensor, tensor.new_zeros(count)))


def _packed(sequences: Sequence[Sequence[int] | np.ndarray]) -> Int[Tensor, " tokens"]:
    arrays = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
    return torch.from_numpy(np.concatenate(arrays) if arrays else np.zeros(0, np.int64))
