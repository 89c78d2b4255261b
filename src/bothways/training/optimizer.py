"""The optimizer, and the table that says what it does to every parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import torch
from pydantic import Field
from torch import nn

from bothways.config import config
from bothways.encoder.matrices import hidden_matrices
from bothways.errors import InputError
from bothways.layers.heads import MaskedLm
from bothways.layers.shifted import ShiftedEmbedding
from bothways.training.optimizers import adam, joined, muon

Beta = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0)]


@config
class AdamW:
    """Adam with decoupled weight decay and bias correction (arXiv 1711.05101), as torch computes it."""

    type: Literal["adamw"] = "adamw"
    lr: Rate
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: Rate = 1e-6
    weight_decay: Decay = 0.01


@config
class StableAdamW:
    """AdamW whose update of a tensor shrinks where the gradient is larger than expected (arXiv 2304.13013).

    It takes the place of gradient clipping, so `clip` is best None.

    Attributes:
        fully_decoupled: a weight loses `weight_decay` of itself in a step at the highest learning rate, however high that is
            (ModernBERT, arXiv 2412.13663, with 1e-5); without it `lr * weight_decay`, as with AdamW.
    """

    type: Literal["stable_adamw"] = "stable_adamw"
    lr: Rate
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: Rate = 1e-6
    weight_decay: Decay = 0.01
    fully_decoupled: bool = False


@config
class Lamb:
    """Adam with a step in each matrix as long as the matrix is large, for large batches (arXiv 1904.00962).

    Attributes:
        corrected: the running means are corrected for having begun at 0, as in the paper.
    """

    type: Literal["lamb"] = "lamb"
    lr: Rate
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: Rate = 1e-6
    weight_decay: Decay = 0.01
    corrected: bool = True


@config
class BertAdam:
    """BERT's own: Adam with decoupled weight decay and without bias correction (arXiv 1810.04805)."""

    type: Literal["bert_adam"] = "bert_adam"
    lr: Rate
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: Rate = 1e-6
    weight_decay: Decay = 0.01


@config
class Muon:
    """Orthogonal momentum for the matrices of hidden layers, AdamW for all else (https://kellerjordan.github.io/posts/muon).

    Queries, keys and values, and the halves of a gated MLP, are matrices of their own here. The schedule's factor acts on
    every learning rate.

    Attributes:
        lr: of the hidden matrices.
        rest: of embeddings, heads, norms, biases; its `lr` is theirs unless one is given here.
        embedding_lr: of embedding tables, a tied vocabulary among them.
        head_lr: of other parameters of two axes or more: heads, convolutions, the projection beside an embedding.
        vector_lr: of norms and biases.
        momentum_warmup: steps over which momentum rises from 0.85; 0: none.
        iterations, scale, normalised, cautious: as in `training.optimizers.muon.Muon`.
    """

    type: Literal["muon"] = "muon"
    lr: Rate
    rest: AdamW
    embedding_lr: Rate | None = None
    head_lr: Rate | None = None
    vector_lr: Rate | None = None
    momentum: Beta = 0.95
    momentum_warmup: Annotated[int, Field(ge=0)] = 0
    weight_decay: Decay = 0.0
    iterations: Annotated[int, Field(gt=0, lt=100)] = 5
    scale: muon.Scale = "spectral"
    normalised: Beta | None = None
    cautious: bool = False


Optimizer: TypeAlias = Annotated[AdamW | StableAdamW | Lamb | BertAdam | Muon, Field(discriminator="type")]
# An optimizer by the `type` of its config: what the table says of each parameter.
Kind: TypeAlias = Literal["adamw", "stable_adamw", "lamb", "bert_adam", "muon"]


@dataclass(frozen=True)
class Group:
    """Parameters treated alike.

    Attributes:
        holds: whether a trainable parameter, given with its name, belongs here.
        lr: a multiplier of the learning rate.
        optimizer: what moves them; None: the settings' own, which with `Muon` is the one of the rest.
        clip: gradients of all groups of one word are clipped by the norm of them all.
    """

    name: str
    holds: Callable[[str, nn.Parameter], bool]
    lr: float
    weight_decay: float
    optimizer: Kind | None = None
    clip: str = ""


@dataclass(frozen=True)
class Row:
    """One parameter of the table; `shared` are the other names of the same tensor.

    Attributes:
        optimizer: what moves it; None: the settings' own.
        clip: as of its group.
    """

    name: str
    shape: tuple[int, ...]
    group: str
    lr: float
    weight_decay: float
    shared: tuple[str, ...]
    optimizer: Kind | None = None
    clip: str = ""


def default_groups(settings: Optimizer, module: nn.Module) -> tuple[Group, ...]:
    """Weight decay on matrices only: not on biases, norms and other parameters of one axis.

    Raises:
        InputError: Muon for a module without hidden matrices.
    """
    if isinstance(settings, Muon):
        return _muon_groups(settings, module)
    return (
        Group("decayed", lambda _, parameter: parameter.ndim >= 2, 1.0, settings.weight_decay, settings.type),
        Group("not decayed", lambda _, parameter: parameter.ndim < 2, 1.0, 0.0, settings.type),
    )


def _muon_groups(settings: Muon, module: nn.Module) -> tuple[Group, ...]:
    hidden = hidden_matrices(module)
    if not hidden:
        raise InputError("optimizer: muon is for the matrices of an encoder's layers, and there are none here; choose adamw")
    untied = {part.decoder for part in module.modules() if isinstance(part, MaskedLm)}
    tables = {part.weight for part in module.modules() if isinstance(part, nn.Embedding) and part not in untied}
    tables |= {part.delta for part in module.modules() if isinstance(part, ShiftedEmbedding)}

    def rest(name: str, holds: Callable[[nn.Parameter], bool], lr: float | None, decay: float) -> Group:
        factor = (lr or settings.rest.lr) / settings.lr
        return Group(name, lambda _, one: one not in hidden and holds(one), factor, decay, settings.rest.type)

    decay = settings.rest.weight_decay
    return (
        Group("hidden", lambda _, one: one in hidden, 1.0, settings.weight_decay, "muon"),
        rest("embeddings", lambda one: one in tables, settings.embedding_lr, decay),
        rest("heads", lambda one: one not in tables and one.ndim >= 2, settings.head_lr, decay),
        rest("vectors", lambda one: one.ndim < 2, settings.vector_lr, 0.0),
    )


def parameter_table(module: nn.Module, groups: Sequence[Group]) -> tuple[Row, ...]:
    """Every parameter once, with its group; a frozen one in the group "frozen".

    Raises:
        ValueError: a trainable parameter in no group, or in two; the message names it.
    """
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    frozen = Group("frozen", lambda *_: True, 0.0, 0.0)
    rows = []
    for parameter, (name, *shared) in names.items():
        group = _group(name, parameter, groups) if parameter.requires_grad else frozen
        shape = tuple(parameter.shape)
        rows.append(Row(name, shape, group.name, group.lr, group.weight_decay, tuple(shared), group.optimizer, group.clip))
    return tuple(rows)


def build(settings: Optimizer, module: nn.Module, table: Sequence[Row]) -> torch.optim.Optimizer:
    """The torch optimizer of a parameter table. The loop sets `lr` before every step: settings, schedule and row multiplied.

    Raises:
        ValueError: a parameter for an optimizer that the settings do not have, or for Muon that is no hidden matrix.
    """
    parameters = dict(module.named_parameters())
    rows: dict[tuple[str, float, float], list[Row]] = {}
    hidden: dict[tuple[str, float, float], list[Row]] = {}
    own = settings.rest if isinstance(settings, Muon) else settings
    for row in table:
        if not parameters[row.name].requires_grad:
            continue
        if row.optimizer not in (None, own.type, settings.type):
            raise ValueError(f"parameter {row.name} is for {row.optimizer}, but the optimizer is {settings.type}")
        of_kind = hidden if row.optimizer == "muon" else rows
        of_kind.setdefault((row.group, row.lr, row.weight_decay), []).append(row)

    def groups(of: dict[tuple[str, float, float], list[Row]]) -> list[dict[str, Any]]:
        return [
            {
                "params": [(row.name, parameters[row.name]) for row in members],
                "weight_decay": decay,
                "multiplier": lr,
                "peak": settings.lr * lr,
            }
            for (_, lr, decay), members in of.items()
        ]

    fused = all(p.device.type in ("cpu", "cuda") for p in parameters.values())
    rest = _adam(own, groups(rows), fused) if rows else None
    if not isinstance(settings, Muon) or not hidden:
        assert rest is not None, "a module without trainable parameters"
        return rest
    matrices = hidden_matrices(module)
    if astray := next((row for members in hidden.values() for row in members if parameters[row.name] not in matrices), None):
        raise ValueError(f"parameter {astray.name} {astray.shape} is no matrix of a hidden layer, so it cannot be muon's")
    first = muon.Muon(
        groups(hidden),
        matrices,
        lr=settings.lr,
        momentum=settings.momentum,
        warmup=settings.momentum_warmup,
        iterations=settings.iterations,
        scale=settings.scale,
        normalised=settings.normalised,
        cautious=settings.cautious,
    )
    return first if rest is None else joined.Joined([first, rest])


def _adam(settings: AdamW | StableAdamW | Lamb | BertAdam, groups: list[dict[str, Any]], fused: bool) -> torch.optim.Optimizer:
    """Adam or a relative of it."""
    lr, betas, eps = settings.lr, settings.betas, settings.eps
    match settings:
        case AdamW():
            return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=fused)
        case StableAdamW():
            return adam.StableAdamW(groups, lr, betas, eps, settings.fully_decoupled)
        case Lamb():
            return adam.Lamb(groups, lr, betas, eps, settings.corrected)
        case BertAdam():
            return adam.BertAdam(groups, lr, betas, eps)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["multiplier"]


def _group(name: str, parameter: nn.Parameter, groups: Sequence[Group]) -> Group:
    found = [group for group in groups if group.holds(name, parameter)]
    if len(found) != 1:
        where = " and ".join(group.name for group in found) or "no group"
        raise ValueError(f"parameter {name} {tuple(parameter.shape)} is in {where}; it must be in exactly one")
    return found[0]
