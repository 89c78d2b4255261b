"""Muon: momentum whose matrices are made orthogonal (https://kellerjordan.github.io/posts/muon).

torch has a Muon of its own, which takes a parameter for one matrix. Here a parameter may be several maps in one (queries,
keys and values; the halves of a gated MLP; the blocks of a block-diagonal one): each is made orthogonal by itself, and all of
one shape together, in one product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)
_EPS = 1e-7
Scale = Literal["spectral", "rms"]


def orthogonalise(matrices: Float[Tensor, "n rows columns"], steps: int = 5) -> Float[Tensor, "n rows columns"]:
    """U S V' of each matrix U Σ V', with every singular value in S near 1 (about 0.7 to 1.2).

    Newton-Schulz iterations x <- a x + b (x x') x + c (x x')² x, in bfloat16 on a GPU, in the matrices' own precision elsewhere.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(_EPS)
    x = x.bfloat16() if x.device.type == "cuda" else x
    a, b, c = _QUINTIC
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal, with decoupled weight decay.

    Args:
        groups: groups of parameters [rows, columns] or [blocks, rows, columns].
        parts: for each parameter the rows of the maps that it is made of.
        momentum: at the end of its warm-up.
        warmup: steps over which momentum rises from 0.85 in a straight line; 0: none.
        iterations: of Newton-Schulz.
        scale: of a map's update: "spectral", sqrt(max(1, rows / columns)), or "rms", 0.2 sqrt(max(rows, columns)),
            which makes an entry move as far as with AdamW at the same learning rate (arXiv 2502.16982).
        normalised: the beta of a running mean of each row's squares, by whose root rows are divided, the update's size kept
            (NorMuon, arXiv 2510.05491); None: rows stay as they are.
        cautious: only weights that the update shrinks anyway are decayed.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        parts: Mapping[nn.Parameter, tuple[int, ...]],
        *,
        lr: float,
        momentum: float = 0.95,
        warmup: int = 0,
        iterations: int = 5,
        scale: Scale = "spectral",
        normalised: float | None = None,
        cautious: bool = False,
    ) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        self._parts: dict[Tensor, tuple[int, ...]] = {**parts}
        self._scale: Scale = scale
        self._momentum, self._warmup, self._iterations = momentum, warmup, iterations
        self._normalised, self._cautious = normalised, cautious

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            updates = self._orthogonal([self._momentous(parameter) for parameter in parameters], parameters)
            for parameter, update in zip(parameters, updates, strict=True):
                self._apply(parameter, update, group["lr"], group["weight_decay"])

    def _momentous(self, parameter: Tensor) -> Tensor:
        """The gradient after Nesterov's momentum."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["momentum_buffer"] = torch.zeros_like(parameter)
            if self._normalised is not None:
                state["row_squares"] = torch.zeros_like(parameter[..., :1])
        risen = min(state["step"].item() / self._warmup, 1.0) if self._warmup else 1.0
        momentum = 0.85 + (self._momentum - 0.85) * risen if self._warmup else self._momentum
        state["step"] += 1
        state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum_buffer"], momentum)

    def _orthogonal(self, updates: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
        """Each update, its maps made orthogonal and scaled: those of one shape in one product."""
        maps = [
            one
            for update, parameter in zip(updates, parameters, strict=True)
            for block in _full(update).reshape(-1, *update.shape[-2:])
            for one in block.split(self._parts[parameter])
        ]
        shapes: dict[torch.Size, list[int]] = {}
        for number, one in enumerate(maps):
            shapes.setdefault(one.shape, []).append(number)
        for shape, numbers in shapes.items():
            found = orthogonalise(torch.stack([maps[number] for number in numbers]), self._iterations)
            found = found * _factor(shape, self._scale)
            for number, one in zip(numbers, found, strict=True):
                maps[number] = one
        rest, joined = iter(maps), []
        for parameter in parameters:
            rows = [next(rest) for _ in range(math.prod(parameter.shape[:-2]) * len(self._parts[parameter]))]
            joined.append(torch.cat(rows).view(parameter.shape))
        return joined

    def _rowwise(self, parameter: Tensor, update: Tensor) -> Tensor:
        if self._normalised is None:
            return update
        squares = self.state[parameter]["row_squares"]
        squares.lerp_(update.square().mean(dim=-1, keepdim=True), 1 - self._normalised)
        even = update / squares.sqrt().clamp_min(_EPS)
        return even * (update.norm() / even.norm().clamp_min(_EPS))

    def _apply(self, parameter: Tensor, update: Tensor, lr: float, decay: float) -> None:
        if isinstance(parameter, DTensor):
            update = distribute_tensor(update, parameter.device_mesh, parameter.placements, src_data_rank=None)
        update = self._rowwise(parameter, update)
        if decay and self._cautious:
            parameter.sub_(torch.where(update * parameter > 0, parameter, 0.0), alpha=lr * decay)
        elif decay:
            parameter.mul_(1 - lr * decay)
        parameter.sub_(update, alpha=lr)


def _full(tensor: Tensor) -> Tensor:
    """The whole of a tensor whose shards lie in several processes."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _factor(shape: torch.Size, scale: Scale) -> float:
    rows, columns = shape
    return math.sqrt(max(1.0, rows / columns)) if scale == "spectral" else 0.2 * math.sqrt(max(rows, columns))
