"""Rotary position embedding (arXiv 2104.09864), rotate-half layout.

The features of a head are two halves; feature i of the first half and feature i of the second are
the two coordinates of a point that turns by `position * theta^(-2i/size)`. Checkpoints with the
interleaved layout (coordinates side by side) are brought to this one when they are loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rotary_frequencies(
    size: int, theta: float, device: torch.device | None = None, factor: float = 1.0
) -> Float[Tensor, " half"]:
    """Radians a position for each of the size / 2 pairs of features, divided by `factor`, in float32."""
    return 1.0 / (factor * theta ** (torch.arange(0, size, 2, device=device, dtype=torch.float32) / size))


def rotary_table(
    positions: Int[Tensor, " tokens"], longest: int, frequencies: Float[Tensor, " half"], factor: float = 1.0
) -> tuple[Float[Tensor, "tokens half"], Float[Tensor, "tokens half"]]:
    """Cosine and sine of each token's angles, times `factor`, in float32. `longest` bounds the positions."""
    angles = torch.outer(torch.arange(longest, device=positions.device, dtype=torch.float32), frequencies)
    cos, sin = angles.cos(), angles.sin()
    return (cos * factor)[positions], (sin * factor)[positions]


def rotate(
    x: Float[Tensor, "tokens *heads size"], table: tuple[Float[Tensor, "tokens half"], Float[Tensor, "tokens half"]]
) -> Float[Tensor, "tokens *heads size"]:
    """Turn each token's features by the angles of its position, computed in float32."""
    shape = (x.shape[0], *([1] * (x.dim() - 2)), x.shape[-1] // 2)
    cos, sin = (part.view(shape) for part in table)
    return _Rotate.apply(x, cos, sin)  # type: ignore[no-any-return]


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    dtype = torch.promote_types(x.dtype, cos.dtype)
    a, b = x.to(dtype).chunk(2, dim=-1)
    if torch.compiler.is_compiling():  # which makes one loop of it all
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    first, second = out.chunk(2, dim=-1)  # written in place: three times as fast as joining products
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=second).addcmul_(a, sin)
    return out.to(x.dtype)


class _Rotate(torch.autograd.Function):
    """The gradient of a rotation is the rotation back: nothing but the table is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, -sin), None, None
