"""Tokens drawn from vocabulary logits, by numbers that were drawn before."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def draw_tokens(
    logits: Float[Tensor, "rows vocab"],
    uniforms: Float[Tensor, " rows"],
    temperature: float = 1.0,
    excluded: Int[Tensor, " rows"] | None = None,
) -> Int[Tensor, " rows"]:
    """A token a row out of softmax(logits / temperature): the first whose cumulated probability exceeds the row's number.

    One number in [0, 1) stands for one draw, so a row's token is a function of its logits and its number, whatever rows are
    beside it. No gradient reaches the logits.

    Args:
        excluded: of each row, the token that is not drawn.
    """
    odds = logits.detach().float() / temperature
    if excluded is not None:
        odds = odds.scatter(1, excluded.unsqueeze(1), -torch.inf)
    cumulated = odds.softmax(dim=1).cumsum_(dim=1)
    whole = cumulated[:, -1:]
    # below the whole even where the product is rounded up to it: what comes after the last likely token is never drawn
    aims = torch.minimum(uniforms.unsqueeze(1).float() * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    return torch.searchsorted(cumulated, aims, right=True).squeeze(1)
