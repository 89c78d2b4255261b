"""How far a student's vocabulary logits lie from a teacher's, without keeping either's.

Like the cross-entropy of `ops.cross_entropy`: logits exist for one chunk of rows at a time, and the gradient of the
student's is taken on the spot.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bothways.ops.cross_entropy import accumulate

# Rows whose logits exist at a time
_ROWS = 512


class Projected(NamedTuple):
    """Rows and the linear map that makes logits of them: hidden @ weight.T + bias."""

    hidden: Float[Tensor, "rows size"]
    weight: Float[Tensor, "vocab size"]
    bias: Float[Tensor, " vocab"] | None


def linear_kl_divergence(student: Projected, teacher: Projected, temperature: float) -> Float[Tensor, ""]:
    """T² · KL(teacher ‖ student) in nats, summed over the rows; both softmaxes are of logits / T (arXiv 1503.02531).

    T² keeps the size of the gradient where T changes. No gradient reaches the teacher. Products are in autocast's precision
    where that is on, all else in float32. Vocabularies of different size are compared over the rows that both have, so the
    further ones must be filler. No rows give 0.
    """
    known = min(student.weight.shape[0], teacher.weight.shape[0])
    own, other = _first(student, known), _first(teacher, known)
    if not torch.is_grad_enabled():  # a Function is told what requires gradients, not whether anyone wants them
        own = _detached(own)
    return _LinearKl.apply(*own, *_detached(other), temperature)  # type: ignore[no-any-return]


def _first(one: Projected, known: int) -> Projected:
    return (
        one
        if one.weight.shape[0] == known
        else Projected(one.hidden, one.weight[:known], None if one.bias is None else one.bias[:known])
    )


def _detached(one: Projected) -> Projected:
    return Projected(one.hidden.detach(), one.weight.detach(), None if one.bias is None else one.bias.detach())


def _cast(one: Projected, dtype: torch.dtype) -> Projected:
    return Projected(one.hidden.to(dtype), one.weight.to(dtype), None if one.bias is None else one.bias.to(dtype))


class _LinearKl(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        temperature, wanted = given[6], ctx.needs_input_grad[:3]
        empty = torch.empty_like if len(given[0]) else torch.zeros_like
        grads = [empty(x) if x is not None and want else None for x, want in zip(given[:3], wanted, strict=True)]
        kind = given[0].device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else given[0].dtype
        (hidden, weight, bias), taught = (_cast(Projected(*given[first : first + 3]), dtype) for first in (0, 3))
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for first in range(0, len(hidden), _ROWS):
            rows = slice(first, first + _ROWS)
            log_p = _log_softmax(taught.hidden[rows], taught.weight, taught.bias, temperature)
            log_q = _log_softmax(hidden[rows], weight, bias, temperature)
            p = log_p.exp()
            loss += (p * log_p.sub_(log_q)).sum()
            if any(wanted):
                apart = log_q.exp_().sub_(p)
                # of T² · KL with respect to logits / T: T · (q - p) with respect to the logits
                accumulate(grads, apart.to(dtype), apart.new_full((len(apart), 1), temperature), hidden, weight, rows)
        ctx.save_for_backward(*grads)
        return loss * temperature**2

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        return (*(None if g is None else g * outputs[0].to(g.dtype) for g in ctx.saved_tensors), None, None, None, None)


def _log_softmax(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    return F.linear(hidden, weight, bias).float().div_(temperature).log_softmax(dim=1)
