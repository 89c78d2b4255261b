"""Cross-entropy of a linear projection onto a vocabulary, without keeping the logits.

The logits of `rows` predictions over a vocabulary are by far the largest tensor of masked-language
training. Here they exist for one chunk of rows at a time, and their gradient is taken on the spot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

_CHUNK = 512

See: TypeAlias = Callable[[Float[Tensor, "rows vocab"], slice], None]
"""Is shown float32 odds, exp(logit - the largest of its row), and which rows they are of; they are to be left as they are."""


def linear_cross_entropy(
    hidden: Float[Tensor, "rows size"],
    weight: Float[Tensor, "vocab size"],
    bias: Float[Tensor, " vocab"] | None,
    labels: Int[Tensor, " rows"],
    see: See | None = None,
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Summed cross-entropy in nats of softmax(hidden @ weight.T + bias), and how many were right.

    `see` looks at the odds of all rows as they pass: what is drawn by them needs no second projection.

    Products are in autocast's precision where that is on, all else in float32. Equal to
    `cross_entropy(linear(...), reduction="sum")`; no rows give 0.
    """
    if not torch.is_grad_enabled():  # a Function is told what requires gradients, not whether anyone wants them
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    loss, right = _LinearCrossEntropy.apply(hidden, weight, bias, labels, see)  # type: ignore[misc]
    return loss, right


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, see: See | None
    ) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad[:3]
        empty = torch.empty_like if len(labels) else torch.zeros_like  # of 30,000 x 256 numbers, zeros cost as much as the loss
        grads = [empty(x) if x is not None and want else None for x, want in zip((hidden, weight, bias), wanted, strict=True)]
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        right = torch.zeros((), dtype=torch.int64, device=hidden.device)
        for first in range(0, len(labels), _CHUNK):
            rows = slice(first, first + _CHUNK)
            logits = F.linear(hidden[rows], weight, bias).float()
            target = labels[rows].unsqueeze(1)
            highest = logits.amax(dim=1, keepdim=True)
            aimed = logits.gather(1, target) - highest
            right += _guessed(logits, target, aimed)
            odds = logits.sub_(highest).exp_()
            if see is not None:
                see(odds, rows)
            total = odds.sum(dim=1, keepdim=True)
            loss += (total.log() - aimed).sum()
            if any(wanted):
                odds.scatter_add_(1, target, -total)
                accumulate(grads, odds.to(dtype), total.reciprocal(), hidden, weight, rows)
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(right)
        return loss, right

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = outputs[0]
        return (*(None if g is None else g.mul_(scale.to(g.dtype)) for g in ctx.saved_tensors), None, None)


def _guessed(logits: Tensor, target: Tensor, aimed: Tensor) -> Tensor:
    """How many rows have their target as the first of their largest logits. `aimed`: the target's less the largest."""
    if logits.device.type == "cpu":  # looking for a place takes three times as long as looking for a value: only where it counts
        candidates = (aimed == 0).squeeze(1)
        logits, target = logits[candidates], target[candidates]
    return (logits.argmax(dim=1, keepdim=True) == target).sum()


def accumulate(grads: list[Tensor | None], odds: Tensor, share: Tensor, hidden: Tensor, weight: Tensor, rows: slice) -> None:
    """Add the gradients of some rows, whose logits have the gradient `share * odds`.

    The factor of each row is multiplied into the narrow matrices, not into `odds`, which are as wide as the vocabulary.
    """
    of_hidden, of_weight, of_bias = grads
    kept = 1 if rows.start else 0  # the first rows find what memory held
    if of_hidden is not None and of_hidden.dtype == odds.dtype:
        torch.mm(odds, weight, out=of_hidden[rows]).mul_(share)
    elif of_hidden is not None:
        of_hidden[rows] = (odds @ weight) * share
    if of_weight is not None and of_weight.dtype == odds.dtype:
        of_weight.addmm_(odds.T, hidden[rows] * share.to(odds.dtype), beta=kept)
    elif of_weight is not None:
        product = odds.T @ (hidden[rows] * share).to(odds.dtype)
        of_weight.copy_(of_weight + product if kept else product)
    if of_bias is not None:
        summed = torch.mv(odds.T, share.squeeze(1).to(odds.dtype))
        of_bias.copy_(of_bias + summed if kept else summed)
