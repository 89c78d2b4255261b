"""What is trained: a root module of encoder, heads and loss, which returns sums and their counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

from jaxtyping import Num
from torch import Tensor, nn

from bothways.data.sample import Epochs, Sample

I = TypeVar("I")  # noqa: E741
I_co = TypeVar("I_co", covariant=True)


@runtime_checkable
class Prepare(Protocol[I_co]):
    """From samples to inputs, in the loader's workers: a pure function that can be sent to them."""

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> I_co: ...


class Objective(nn.Module, ABC, Generic[I]):
    """A loss over an encoder and its heads.

    `forward` returns sums, `counts` the denominator of each, so that any number of micro-batches and
    processes add up to the same step.

    Attributes:
        weights: the loss terms among the sums, and their weights; every other sum is a metric.
        whole_batch: whether the loss couples all samples of a step (contrastive).
        takes_filler: whether inputs may end in filler (`Batch.to_capacity`), which then counts for nothing.
        prepare: makes inputs of samples.
    """

    weights: Mapping[str, float]
    whole_batch: bool = False
    takes_filler: bool = False
    prepare: Prepare[I]

    @abstractmethod
    def counts(self, inputs: I) -> dict[str, Num[Tensor, ""]]:
        """The denominator of every sum."""

    @abstractmethod
    def forward(self, inputs: I) -> dict[str, Num[Tensor, ""]]:
        """The sums."""

    @abstractmethod
    def flops(self, inputs: I) -> float:
        """Matrix-multiply FLOPs of one forward pass."""
