"""Cross-entropy of a linear projection onto a vocabulary, without keeping the logits.

The logits of `rows` predictions over a vocabulary are by far the largest tensor of masked-language
training. Here they exist for one chunk of rows at a time, and their gradient is taken on the spot.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

_CHUNK = 512


def linear_cross_entropy(
    hidden: Float[Tensor, "rows size"],
    weight: Float[Tensor, "vocab size"],
    bias: Float[Tensor, " vocab"] | None,
    labels: Int[Tensor, " rows"],
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Summed cross-entropy in nats of softmax(hidden @ weight.T + bias), and how many were right.

    Products are in autocast's precision where that is on, all else in float32. Equal to
    `cross_entropy(linear(...), reduction="sum")`; no rows give 0.
    """
    if not torch.is_grad_enabled():  # a Function is told what requires gradients, not whether anyone wants them
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    loss, right = _LinearCrossEntropy.apply(hidden, weight, bias, labels)  # type: ignore[misc]
    return loss, right


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad[:3]
        grads = [
            torch.zeros_like(x) if x is not None and want else None
            for x, want in zip((hidden, weight, bias), wanted, strict=True)
        ]
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        right = torch.zeros((), dtype=torch.int64, device=hidden.device)
        for first in range(0, len(labels), _CHUNK):
            rows = slice(first, first + _CHUNK)
            logits = F.linear(hidden[rows], weight, bias).float()
            target = labels[rows].unsqueeze(1)
            highest, best = logits.max(dim=1, keepdim=True)
            right += (best == target).sum()
            aimed = logits.gather(1, target) - highest
            odds = logits.sub_(highest).exp_()
            total = odds.sum(dim=1, keepdim=True)
            loss += (total.log() - aimed).sum()
            if any(wanted):
                slope = odds.div_(total)
                slope.scatter_add_(1, target, torch.full_like(target, -1, dtype=slope.dtype))
                _accumulate(grads, slope.to(dtype), hidden[rows], weight, rows)
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(right)
        return loss, right

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = outputs[0]
        return (*(None if g is None else g.mul_(scale.to(g.dtype)) for g in ctx.saved_tensors), None)


def _accumulate(grads: list[Tensor | None], slope: Tensor, hidden: Tensor, weight: Tensor, rows: slice) -> None:
    of_hidden, of_weight, of_bias = grads
    if of_hidden is not None and of_hidden.dtype == slope.dtype:
        torch.mm(slope, weight, out=of_hidden[rows])
    elif of_hidden is not None:
        of_hidden[rows] = slope @ weight
    if of_weight is not None and of_weight.dtype == slope.dtype:
        of_weight.addmm_(slope.T, hidden)
    elif of_weight is not None:
        of_weight += slope.T @ hidden
    if of_bias is not None:
        of_bias += slope.sum(dim=0)
