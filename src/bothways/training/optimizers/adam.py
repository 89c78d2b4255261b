"""Three relatives of Adam, with torch's names for their state: `step`, `exp_avg`, `exp_avg_sq`."""

# pyright: reportPrivateImportUsage=false
# torch keeps _foreach_* for optimizers, its own and others': one call, and on a GPU a few kernels, for all tensors of a group
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

# Numbers of a piece on a CPU: with what is computed of them they stay in a core's cache, and no large tensor is made
_PIECE = 1 << 17


@dataclass(frozen=True)
class _Piece:
    """Some of a group's numbers, as lists of equal length that one call takes: all its tensors, or on a CPU a part of one.

    Attributes:
        owners: the number, among the group's parameters with a gradient, of the one that each tensor is a part of.
        steps: of each, the number of the step to come, from 1.
    """

    betas: tuple[float, float]
    owners: list[int]
    parameters: list[Tensor]
    gradients: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    steps: list[int]

    def take_in(self) -> None:
        """Move both running means towards the gradients."""
        first, second = self.betas
        torch._foreach_lerp_(self.means, self.gradients, 1 - first)
        torch._foreach_mul_(self.squares, second)
        torch._foreach_addcmul_(self.squares, self.gradients, self.gradients, 1 - second)

    def corrections(self, which: int) -> list[float]:
        """By how much each running mean, begun at 0, falls short of the mean."""
        return [1 - self.betas[which] ** step for step in self.steps]

    def directions(self, eps: float, corrected: bool, decay: float = 0.0) -> list[Tensor]:
        """mean / (sqrt(mean of squares) + eps) + decay * parameter, as new tensors."""
        roots = torch._foreach_sqrt(self.squares)
        if corrected:
            torch._foreach_div_(roots, [correction**0.5 for correction in self.corrections(1)])
        torch._foreach_add_(roots, eps)
        if corrected:
            torch._foreach_mul_(roots, self.corrections(0))
        torch._foreach_reciprocal_(roots)
        torch._foreach_mul_(roots, self.means)
        if decay:
            torch._foreach_add_(roots, self.parameters, alpha=decay)
        return list(roots)


def _pieces(group: dict[str, Any], state: dict[Tensor, dict[str, Tensor]]) -> list[_Piece]:
    """A group's parameters that have a gradient, their step counted."""
    rows: list[tuple[int, Tensor, Tensor, Tensor, Tensor, int]] = []
    for parameter in group["params"]:
        if parameter.grad is None:
            continue
        kept = state[parameter]
        if not kept:
            kept["step"] = torch.zeros((), dtype=torch.float32)
            kept["exp_avg"], kept["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        kept["step"] += 1
        rows.append((len(rows), parameter, parameter.grad, kept["exp_avg"], kept["exp_avg_sq"], int(kept["step"].item())))
    if all(row[1].device.type != "cpu" or isinstance(row[1], DTensor) for row in rows):
        return [_Piece(group["betas"], *map(list, zip(*rows, strict=True)))] if rows else []  # type: ignore[arg-type]
    return [_Piece(group["betas"], *([one] for one in part)) for row in rows for part in _cut(*row)]  # type: ignore[arg-type]


def _cut(owner: int, *row: Any) -> Iterator[tuple[Any, ...]]:
    *tensors, step = row
    if not all(one.is_contiguous() for one in tensors):
        yield owner, *row
        return
    for part in zip(*(one.view(-1).split(_PIECE) for one in tensors), strict=True):
        yield owner, *part, step


class StableAdamW(torch.optim.Optimizer):
    """AdamW whose learning rate is divided, for each tensor, by how far its gradient exceeds what was expected of it.

    rms = sqrt(mean(g² / max(v, eps²))), with v the corrected mean of squares; lr / max(1, rms) (arXiv 2304.13013, as
    arXiv 2412.13663 trains with it). It takes the place of gradient clipping.

    Args:
        groups: parameter groups; `lr` and `peak`, the highest it will be, are set from outside.
        fully_decoupled: a weight loses `weight_decay * lr / peak` of itself in a step, instead of `weight_decay * lr`.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float, fully_decoupled: bool
    ) -> None:
        defaults = {"lr": lr, "peak": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "fully_decoupled": fully_decoupled}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            pieces, eps = _pieces(group, self.state), group["eps"]
            sums: dict[int, Tensor] = {}
            counts: dict[int, int] = {}
            for piece in pieces:
                piece.take_in()
                ratios = torch._foreach_div(piece.squares, piece.corrections(1))
                torch._foreach_clamp_min_(ratios, eps**2)
                torch._foreach_reciprocal_(ratios)
                torch._foreach_mul_(ratios, piece.gradients)
                torch._foreach_mul_(ratios, piece.gradients)
                for owner, ratio in zip(piece.owners, ratios, strict=True):
                    sums[owner] = sums[owner] + ratio.sum() if owner in sums else ratio.sum()
                    counts[owner] = counts.get(owner, 0) + ratio.numel()
            rates = {owner: group["lr"] / (total / counts[owner]).sqrt().clamp_min(1.0) for owner, total in sums.items()}
            decay = group["weight_decay"] / (group["peak"] if group["fully_decoupled"] else 1.0)
            for piece in pieces:
                own = [rates[owner] for owner in piece.owners]
                changes = piece.directions(eps, corrected=True, decay=decay)
                torch._foreach_mul_(changes, own)
                torch._foreach_sub_(piece.parameters, changes)


class Lamb(torch.optim.Optimizer):
    """Adam whose step in each matrix is as long as the matrix is large (arXiv 1904.00962).

    The step of a parameter p is lr · |p| / |u| · u with u = mean / (root + eps) + weight_decay · p; where either norm is 0,
    lr · u. As in ALBERT's training, parameters of fewer than two axes (biases, norms) take lr · u, too.

    Args:
        corrected: whether the running means are corrected for having begun at 0, as in the paper.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float, corrected: bool
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "corrected": corrected})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            pieces, how = _pieces(group, self.state), (group["eps"], group["corrected"], group["weight_decay"])
            matrices = [one for one in group["params"] if one.grad is not None]
            squares: dict[int, list[Tensor]] = {}
            for piece in pieces:
                piece.take_in()
                norms = zip(torch._foreach_norm(piece.parameters), torch._foreach_norm(piece.directions(*how)), strict=True)
                for owner, (size, length) in zip(piece.owners, norms, strict=True):
                    found = squares.setdefault(owner, [torch.zeros_like(size), torch.zeros_like(length)])
                    found[0], found[1] = found[0] + size**2, found[1] + length**2
            trusts = {owner: _trust(matrices[owner], *found) for owner, found in squares.items()}
            for piece in pieces:
                changes = piece.directions(*how)  # once more: to keep them would take a second copy of all weights
                torch._foreach_mul_(changes, [trusts[owner] for owner in piece.owners])
                torch._foreach_add_(piece.parameters, changes, alpha=-group["lr"])


class BertAdam(torch.optim.Optimizer):
    """Adam as BERT was trained with: weight decay beside the step, and no correction of the running means (arXiv 1810.04805).

    The first steps are larger than Adam's: (1 - b1) / sqrt(1 - b2) times as large, which is 3.2 at the published betas.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for piece in _pieces(group, self.state):
                piece.take_in()
                changes = piece.directions(group["eps"], corrected=False, decay=group["weight_decay"])
                torch._foreach_add_(piece.parameters, changes, alpha=-group["lr"])


def _trust(parameter: Tensor, size: Tensor, length: Tensor) -> Tensor:
    """|p| / |u|, of their squares; 1 where it means nothing."""
    if parameter.ndim < 2:
        return torch.ones_like(size)
    return torch.where((size > 0) & (length > 0), (size / length).sqrt(), torch.ones_like(size))
