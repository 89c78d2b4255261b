"""Three relatives of Adam, with torch's names for their state: `step`, `exp_avg`, `exp_avg_sq`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class _Moments:
    """The parameters of a group that have a gradient, what is kept of each, and the number of the step to come, from 1."""

    betas: tuple[float, float]
    parameters: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)
    squares: list[Tensor] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, group: dict[str, Any], state: dict[Tensor, dict[str, Tensor]]) -> _Moments:
        """Both running means of a group, with the present gradients taken in."""
        moments = cls(group["betas"])
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            kept = state[parameter]
            if not kept:
                kept["step"] = torch.zeros((), dtype=torch.float32)
                kept["exp_avg"], kept["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            kept["step"] += 1
            moments.parameters.append(parameter)
            moments.gradients.append(parameter.grad)
            moments.means.append(kept["exp_avg"])
            moments.squares.append(kept["exp_avg_sq"])
            moments.steps.append(int(kept["step"].item()))
        if moments.parameters:
            first, second = moments.betas
            torch._foreach_lerp_(moments.means, moments.gradients, 1 - first)
            torch._foreach_mul_(moments.squares, second)
            torch._foreach_addcmul_(moments.squares, moments.gradients, moments.gradients, 1 - second)
        return moments

    def corrections(self, which: int) -> list[float]:
        """By how much each running mean, begun at 0, falls short of the mean."""
        return [1 - self.betas[which] ** step for step in self.steps]

    def directions(self, eps: float, corrected: bool) -> list[Tensor]:
        """mean / (sqrt(mean of squares) + eps) of each parameter, as new tensors."""
        roots = torch._foreach_sqrt(self.squares)
        if corrected:
            torch._foreach_div_(roots, [correction**0.5 for correction in self.corrections(1)])
        torch._foreach_add_(roots, eps)
        if corrected:
            torch._foreach_mul_(roots, self.corrections(0))
        return list(torch._foreach_div(self.means, roots))


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
            moments, eps = _Moments.of(group, self.state), group["eps"]
            if not moments.parameters:
                continue
            expected = torch._foreach_div(moments.squares, moments.corrections(1))
            torch._foreach_clamp_min_(expected, eps**2)
            ratios = torch._foreach_mul(moments.gradients, moments.gradients)
            torch._foreach_div_(ratios, expected)
            rates = [group["lr"] / ratio.mean().sqrt().clamp_min(1.0) for ratio in ratios]
            decay = group["weight_decay"] / (group["peak"] if group["fully_decoupled"] else 1.0)
            if decay:
                torch._foreach_mul_(moments.parameters, [1 - rate * decay for rate in rates])
            changes = moments.directions(eps, corrected=True)
            torch._foreach_mul_(changes, rates)
            torch._foreach_sub_(moments.parameters, changes)


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
            moments = _Moments.of(group, self.state)
            if not moments.parameters:
                continue
            changes = moments.directions(group["eps"], group["corrected"])
            if group["weight_decay"]:
                torch._foreach_add_(changes, moments.parameters, alpha=group["weight_decay"])
            sizes, lengths = torch._foreach_norm(moments.parameters), torch._foreach_norm(changes)
            torch._foreach_mul_(changes, [_trust(*one) for one in zip(moments.parameters, sizes, lengths, strict=True)])
            torch._foreach_add_(moments.parameters, changes, alpha=-group["lr"])


class BertAdam(torch.optim.Optimizer):
    """Adam as BERT was trained with: weight decay beside the step, and no correction of the running means (arXiv 1810.04805).

    The first steps are larger than Adam's: (1 - b1) / sqrt(1 - b2) times as large, which is 3.2 at the published betas.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            moments = _Moments.of(group, self.state)
            if not moments.parameters:
                continue
            changes = moments.directions(group["eps"], corrected=False)
            if group["weight_decay"]:
                torch._foreach_add_(changes, moments.parameters, alpha=group["weight_decay"])
            torch._foreach_add_(moments.parameters, changes, alpha=-group["lr"])


def _trust(parameter: Tensor, size: Tensor, length: Tensor) -> Tensor:
    """|p| / |u|; 1 where it means nothing."""
    if parameter.ndim < 2:
        return torch.ones_like(size)
    return torch.where((size > 0) & (length > 0), size / length, torch.ones_like(size))
