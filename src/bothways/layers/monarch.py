"""Mixing between tokens without attention: gated convolutions as long as the sequence (Monarch Mixer, arXiv 2310.12109).

Nothing here looks at a padding mask. In published models a sequence always has its full length, filled up with padding that is
read like any other token (`EncoderConfig.filler`); without that, each sequence is convolved alone at its own length, with the
first positions of the same filters: another network.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from bothways.config import config
from bothways.errors import InputError
from bothways.layers.context import Context
from bothways.layers.norm import Norm, build_norm
from bothways.layers.ranges import Positive
from bothways.ops.graphs import outside
from bothways.ops.long_convolution import long_convolution
from bothways.ragged import Ragged

_TAPS = 3  # of the short convolution


@config
class Monarch:
    """out(long(x1 * v) * x2 + residual(x)), with x1, x2, v a projection of x and a short convolution of that.

    Attributes:
        length: positions of the grid that the long filters are functions on; their rates are relative to it.
        bidirectional: filters reach after a token as well as before it.
        residual: a second long convolution, of the input as it is, is added.
        short: which three tokens the short convolution sees: "causal", the two before and the token itself, as published models
            do in bidirectional mode, too; or "centred", the token between its neighbours.
        width: of the network whose values the filters are.
        features: of a position, where it enters that network: its place from 0 to 1, then cosines and sines.
        frequency: of that network's sines, in the beginning.
        norm: of the input.
    """

    type: Literal["monarch"] = "monarch"
    length: PositiveInt
    bidirectional: bool = True
    residual: bool = True
    short: Literal["causal", "centred"] = "causal"
    width: PositiveInt = 128
    features: Annotated[int, Field(ge=3)] = 5
    frequency: Positive = 10.0
    norm: Norm | None = None

    def __post_init__(self) -> None:
        if self.features % 2 == 0:
            raise InputError(f"Monarch.features: {self.features} is no odd number: a place, and as many cosines as sines")

    def parts(self, hidden_size: int) -> dict[str, list[int]]:
        """Maps that are several in one, by name: the rows of x1, x2 and v."""
        return {name: [hidden_size] * 3 for name in ("project", "short")}


class MonarchMixer(nn.Module):
    """The mixer of packed sequences. The rows of `project` are those of x1, then x2, then v."""

    def __init__(self, config: Monarch, size: int) -> None:
        super().__init__()
        self.config = config
        self.norm = build_norm(config.norm, size)
        self.project = nn.Linear(size, 3 * size)
        self.short = ShortConvolution(3 * size, 0 if config.short == "causal" else 1)
        self.long = LongConvolution(config, size)
        self.residual = LongConvolution(config, size) if config.residual else None
        self.out = nn.Linear(size, size)

    def forward(self, x: Float[Tensor, "tokens size"], context: Context) -> Float[Tensor, "tokens size"]:
        x = self.norm(x)
        x1, x2, v = self.short(self.project(x), context.ragged).chunk(3, dim=-1)
        mixed = outside(self.long, v * x1, context.ragged) * x2
        if self.residual is not None:
            mixed = mixed + outside(self.residual, x, context.ragged)
        return self.out(mixed)

    def flops(self, lengths: tuple[int, ...], everywhere: tuple[int, ...] = ()) -> float:
        """Matrix-multiply FLOPs of one forward pass over sequences of these lengths; the Fourier transforms are none.

        No tokens are global here (`everywhere`).
        """
        filters = sum(part.flops(max(lengths, default=0)) for part in (self.long, self.residual) if part is not None)
        return 2.0 * sum(lengths) * (self.project.weight.numel() + self.out.weight.numel()) + filters


class ShortConvolution(nn.Module):
    """Each feature's weighted sum over three neighbouring tokens, zeros beyond the sequence.

    The last weight is that of the token `ahead` positions after the one computed.
    """

    def __init__(self, size: int, ahead: int) -> None:
        super().__init__()
        self.ahead = ahead
        self.weight = nn.Parameter(torch.empty(size, 1, _TAPS))
        self.bias = nn.Parameter(torch.empty(size))
        self.draw()

    def draw(self, generator: torch.Generator | None = None) -> None:
        """Fresh weights, uniform within 1/sqrt(3)."""
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(_TAPS**-0.5), _TAPS**-0.5, generator=generator)

    def forward(self, x: Float[Tensor, "tokens size"], ragged: Ragged) -> Float[Tensor, "tokens size"]:
        out = self.bias.expand(x.shape)
        for tap in range(_TAPS):
            lag = _TAPS - 1 - tap - self.ahead
            out = out + self.weight[:, 0, tap] * _shifted(x, lag, ragged)
        return out


def _shifted(x: Tensor, lag: int, ragged: Ragged) -> Tensor:
    """For each token the one `lag` positions before it in its sequence; zeros where there is none."""
    if lag == 0:
        return x
    if lag > 0:
        return torch.where((ragged.positions >= lag)[:, None], F.pad(x, (0, 0, lag, 0))[: len(x)], 0.0)
    same = F.pad(ragged.segments, (0, -lag), value=-1)[-lag:] == ragged.segments
    return torch.where(same[:, None], F.pad(x, (0, 0, 0, -lag))[-lag:], 0.0)


class LongConvolution(nn.Module):
    """A convolution whose kernels are the values of a small network at each position (arXiv 2302.10866), fading exponentially.

    `places` [1, length, features] are trained; `times` [1, length, 1] and `decays` [1, 1, size] are not. Their leading ones, and
    the one `frequencies` [1, width] of all sines, are as published checkpoints have them.
    """

    times: Tensor
    decays: Tensor

    def __init__(self, config: Monarch, size: int) -> None:
        super().__init__()
        self.config = config
        self.places = nn.Parameter(torch.empty(1, config.length, config.features))
        self.frequencies = nn.Parameter(torch.empty(1, config.width))
        self.skip = nn.Parameter(torch.empty(size))
        self.register_buffer("times", torch.empty(1, config.length, 1))
        self.register_buffer("decays", torch.empty(1, 1, size))
        self.past = _network(config, size)
        self.future = _network(config, size) if config.bidirectional else None
        self.draw()

    def draw(self, generator: torch.Generator | None = None) -> None:
        """Fresh weights of what is not a linear layer: the grid, and a skip from N(0, 1)."""
        length, bands = self.config.length, (self.config.features - 1) // 2
        times = torch.linspace(0, 1, length)[:, None]
        angles = torch.linspace(1e-4, bands - 1, bands) * (2 * math.pi * torch.linspace(0, length - 1, length)[:, None] / length)
        fastest, slowest = math.log(1e-2) / 0.3, math.log(1e-2) / 1.5
        with torch.no_grad():
            self.times.copy_(times[None])
            self.places.copy_(torch.cat((times, angles.cos(), -angles.sin()), dim=1)[None])
            self.decays.copy_(torch.linspace(slowest, fastest, self.decays.shape[-1])[None, None])
            self.frequencies.fill_(self.config.frequency)
            self.skip.normal_(generator=generator)

    def forward(self, x: Float[Tensor, "tokens size"], ragged: Ragged) -> Float[Tensor, "tokens size"]:
        longest = max(ragged.lengths, default=0)
        past = self.kernel(self.past, longest)
        future = None if self.future is None else self.kernel(self.future, longest)
        return long_convolution(x, ragged, past, future, self.skip)

    def kernel(self, network: nn.ModuleList, length: int) -> Float[Tensor, "length size"]:
        """The first `length` weights of one direction."""
        h = self.places[0, :length]
        for linear in network[:-1]:
            h = torch.sin(self.frequencies * linear(h))
        return network[-1](h) * torch.exp(-self.times[0, :length] * self.decays[0].abs())

    def flops(self, length: int) -> float:
        """Matrix-multiply FLOPs of making the kernels."""
        networks = [network for network in (self.past, self.future) if network is not None]
        return 2.0 * length * sum(p.numel() for network in networks for p in network.parameters() if p.dim() == 2)


def _network(config: Monarch, size: int) -> nn.ModuleList:
    inner = (nn.Linear(config.width, config.width) for _ in range(2))
    return nn.ModuleList((nn.Linear(config.features, config.width), *inner, nn.Linear(config.width, size, bias=False)))
