"""What all published recipes share: their sizes, how a budget is divided among stages, and what they say of themselves."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Literal

from bothways.data.mixture import Mixture, TokenFolder
from bothways.data.source import Column, TextFiles
from bothways.errors import InputError
from bothways.recipes.runs import Pretraining, Staged
from bothways.training.schedule import Elapsed, Hours, Steps, Tokens

Size = Literal["toy", "tiny", "mini", "base"]
Budget = Steps | Tokens | Hours | Elapsed
Source = TextFiles | Column | TokenFolder | Mixture
Make = Callable[[Source, Budget | None, Size], Pretraining | Staged]


@dataclass(frozen=True)
class Shape:
    """What a size fixes: widths of the network, vocabulary, sample length, tokens of a micro-batch and micro-batches a step.

    Attributes:
        published: whether it is a paper's own, whose weights begin as small as published.
    """

    hidden_size: int
    num_layers: int
    heads: int
    intermediate_size: int
    vocab_size: int
    max_length: int
    tokens: int
    accumulate: int = 1
    published: bool = False

    @property
    def gated_size(self) -> int:
        """The width of a gated MLP of about ModernBERT's share of the hidden size."""
        return self.intermediate_size * 3 // 8

    @property
    def initializer_range(self) -> float:
        """0.02 as published, for width 768; a narrower network needs larger weights for sums of the same size.

        At width 128 this is what takes a run off the plateau of word frequencies: docs/log.md has the figures.
        """
        return 0.02 if self.published else 0.02 * math.sqrt(768 / self.hidden_size)


SHAPES: dict[Size, Shape] = {
    "toy": Shape(48, 3, 3, 128, 400, 64, 512),
    "tiny": Shape(128, 4, 4, 512, 8192, 128, 2048),
    "mini": Shape(256, 6, 4, 1024, 16384, 256, 4096),
}
# Of a toy run that is given no budget: enough for every stage to log, evaluate and save
_TOY = Steps(count=12)
# How much longer the texts of a stage of context are than those before it, where the paper's 8 times would not fit a batch
LONGER = 4


def shape_of(size: Size, base: Shape) -> Shape:
    """A size's shape; `base` is the paper's."""
    return SHAPES.get(size, replace(base, published=True))


def budget_of(budget: Budget | None, size: Size, papers: Steps | Tokens) -> Budget:
    """The budget that was given; else the paper's, or a toy's."""
    return budget or (_TOY if size == "toy" else papers)


def divided(budget: Budget, shares: Sequence[float]) -> list[Budget]:
    """A budget cut into stages, by their shares of the whole.

    Raises:
        InputError: fewer units than stages.
    """
    total = sum(shares)
    if isinstance(budget, Hours | Elapsed):
        return [replace(budget, hours=budget.hours * share / total) for share in shares]
    if budget.count < len(shares):
        raise InputError(f"a budget of {budget.count} {budget.type} is too small for {len(shares)} stages")
    ends = [0, *(round(budget.count * part / total) for part in accumulate(shares))]
    counts = [end - start for start, end in pairwise(ends)]
    while 0 in counts:  # a stage has at least one unit, at the cost of the longest
        counts[counts.index(0)] += 1
        counts[counts.index(max(counts))] -= 1
    return [Steps(count=one) if isinstance(budget, Steps) else Tokens(count=one) for one in counts]


@dataclass(frozen=True)
class Recipe:
    """A published run: the function that returns it, and what a list says of it.

    Attributes:
        paper: where it was published: an arXiv id, or a repository.
        base: the parameters of the paper's size.
        needs: the text it was made for.
    """

    make: Make
    paper: str
    base: str
    needs: str

    def __call__(self, source: Source, budget: Budget | None, size: Size = "base") -> Pretraining | Staged:
        return self.make(source, budget, size)

    @property
    def name(self) -> str:
        return self.make.__name__

    @property
    def summary(self) -> str:
        """The first paragraph of the function's docstring."""
        return " ".join((inspect.getdoc(self.make) or "").split("\n\n")[0].split())

    @property
    def described(self) -> dict[str, str]:
        """Name, paper, stages, needs and sizes, for a list."""
        run = self.make(TextFiles(paths=("texts",)), None, "base")
        names = ", ".join(stage.name for stage in run.stages) if isinstance(run, Staged) else "one"
        sizes = f"base ({self.base}), mini, tiny, toy"
        return {"summary": self.summary, "paper": self.paper, "stages": names, "needs": self.needs, "sizes": sizes}

    @staticmethod
    def budgeted(size: Size) -> bool:
        """Whether a size has a budget of its own: the paper's, or a toy's."""
        return size in ("base", "toy")
