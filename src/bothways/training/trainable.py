"""What the loop asks of its inputs, of the stream that hands them out, and of the module it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import torch
from jaxtyping import Num
from torch import Tensor

from bothways.data.loader import WHOLE, Share

State: TypeAlias = dict[str, int]
"""Where a stream stands, as JSON: for example `{"epoch": 1, "batch": 37}`."""


Scalars: TypeAlias = dict[str, Num[Tensor, ""]]

T = TypeVar("T")


@runtime_checkable
class Inputs(Protocol):
    """One micro-batch."""

    @property
    def tokens(self) -> int:
        """The tokens really processed; what budgets, schedules and logs count."""
        ...

    def to(self: T, device: torch.device | str) -> T: ...


@runtime_checkable
class Filled(Protocol):
    """Inputs that may end in filler."""

    @property
    def filler(self) -> int:
        """Tokens that are processed and count for nothing; `tokens` is without them."""
        ...


def filler_of(inputs: Inputs) -> int:
    return inputs.filler if isinstance(inputs, Filled) else 0


I = TypeVar("I", bound=Inputs)  # noqa: E741
I_co = TypeVar("I_co", bound=Inputs, covariant=True)
I_contra = TypeVar("I_contra", bound=Inputs, contravariant=True)


@runtime_checkable
class Stream(Protocol[I_co]):
    """An endless iterator of inputs that knows where it stands. None stands for an input of another process."""

    def __next__(self) -> I_co | None: ...

    def state(self) -> State:
        """The position after the last input handed out."""
        ...

    def close(self) -> None:
        """End what the stream keeps open, such as worker processes."""
        ...


@runtime_checkable
class OpenStream(Protocol[I_co]):
    """Opens a stream at a position, or at its beginning; `share` is only given where there are several processes."""

    def __call__(self, state: State | None, share: Share = WHOLE, /) -> Stream[I_co]: ...


@runtime_checkable
class Trainable(Protocol[I_contra]):
    """The root module: an `nn.Module` whose forward returns sums."""

    @property
    def weights(self) -> Mapping[str, float]:
        """The loss terms among the sums, and their weights; every other sum is a metric."""
        ...

    @property
    def whole_batch(self) -> bool:
        """Whether the loss couples all samples of a step, so that it cannot be accumulated."""
        ...

    def counts(self, inputs: I_contra) -> Scalars:
        """The denominator of every sum that `forward` returns."""
        ...

    def __call__(self, inputs: I_contra, /) -> Scalars:
        """The sums."""
        ...

    def flops(self, inputs: I_contra) -> float:
        """The matrix-multiply FLOPs of one forward pass."""
        ...
