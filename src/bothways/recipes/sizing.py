"""Which size suits a budget: tokens a parameter, and the rule that is behind a number of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

# Hoffmann et al.: where a given number of operations goes furthest, 20 tokens a parameter
TOKENS_PER_PARAMETER = 20.0
RULE = (
    "about 20 tokens a parameter make the most of given compute (arXiv 2203.15556, of decoders). A larger network would see "
    "too little text; a smaller one learns more slowly, but is cheaper to use: published encoders are trained far longer "
    "(BERT-base on some 1,200 tokens a parameter, ModernBERT-base on 13,000)"
)


@dataclass(frozen=True)
class Sized:
    """A size of a recipe, and what the same time buys it.

    Attributes:
        tokens: at the share of the machine's rate that was measured with the planned network.
    """

    name: str
    parameters: int
    tokens: int

    @property
    def tokens_per_parameter(self) -> float:
        return self.tokens / self.parameters


def optimal_parameters(flops: float) -> int:
    """The parameters that the rule gives for a budget of operations: 6 of them a parameter and token."""
    return round(math.sqrt(flops / (6 * TOKENS_PER_PARAMETER)))


def suited(sizes: Mapping[str, tuple[int, float]], flops: float) -> tuple[str, tuple[Sized, ...]]:
    """The largest size that the rule allows within a budget of operations, the smallest if none; and all of them.

    Args:
        sizes: parameters and training FLOPs a token of each.
    """
    rows = sorted(
        (Sized(name, count, round(flops / cost)) for name, (count, cost) in sizes.items()), key=lambda one: one.parameters
    )
    fitting = [one for one in rows if one.tokens_per_parameter >= TOKENS_PER_PARAMETER]
    return (fitting or rows[:1])[-1].name, tuple(rows)
