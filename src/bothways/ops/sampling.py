"""Tokens drawn from the odds of a vocabulary, by numbers that were drawn before."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def draw_tokens(
    odds: Float[Tensor, "rows vocab"],
    uniforms: Float[Tensor, " rows"],
    temperature: float = 1.0,
    excluded: Int[Tensor, " rows"] | None = None,
) -> Int[Tensor, " rows"]:
    """A token a row: the first at which the cumulated odds, as a share of the whole, exceed the row's number.

    One number in [0, 1) stands for one draw, so a row's token is a function of its odds and its number, whatever rows are
    beside it. (ELECTRA's code adds Gumbel noise to the logits and takes the highest: other draws, of the same chances.) No
    gradient reaches the odds, and they are left as they are.

    Args:
        odds: exp(logits) up to a factor of each row, which should leave the largest near 1.
        temperature: what logits would be divided by.
        excluded: of each row, the token that is not drawn.
    """
    odds = odds.detach()
    if excluded is not None:
        odds = _without(odds, excluded.unsqueeze(1))
    if temperature != 1.0:
        odds = odds ** (1 / temperature)
    cumulated = odds.cumsum(dim=1)
    whole = cumulated[:, -1:]
    # below the whole even where the product is rounded up to it: what comes after the last likely token is never drawn
    aims = torch.minimum(uniforms.unsqueeze(1) * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    return torch.searchsorted(cumulated, aims, right=True).squeeze(1)


def _without(odds: Float[Tensor, "rows vocab"], excluded: Int[Tensor, "rows 1"]) -> Float[Tensor, "rows vocab"]:
    """The odds without one token a row, the largest of the others 1; all alike where none of them can be told from 0."""
    left = odds.scatter(1, excluded, 0.0)
    highest = left.amax(dim=1, keepdim=True)
    return torch.where(highest > 0, left / highest, 1.0).scatter(1, excluded, 0.0)
