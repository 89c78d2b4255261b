"""How a step is computed: in which precision, and what of the forward pass is kept for the backward one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias

import torch
from torch import nn

from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.training.trainable import I, Scalars, Trainable

Precision: TypeAlias = Literal["fp32", "bf16", "bf16_emulated"]
# What a processor that multiplies in bfloat16 says of itself: Intel and AMD, Intel with AMX, ARM
_UNITS = ("avx512_bf16", "amx_bf16", "bf16")


@dataclass(frozen=True)
class InBfloat16(Generic[I]):
    """A module whose matrix products are in bfloat16; its weights, sums and gradients stay in float32."""

    module: Trainable[I]
    device: torch.device

    @property
    def weights(self) -> Mapping[str, float]:
        return self.module.weights

    @property
    def whole_batch(self) -> bool:
        return self.module.whole_batch

    def counts(self, inputs: I) -> Scalars:
        return self.module.counts(inputs)

    def __call__(self, inputs: I, /) -> Scalars:
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            return self.module(inputs)

    def flops(self, inputs: I) -> float:
        return self.module.flops(inputs)


def in_precision(module: Trainable[I], precision: Precision, device: torch.device) -> Trainable[I]:
    """What computes the module's sums.

    Raises:
        InputError: "bf16" where the device would be slower for it.
    """
    if precision == "fp32":
        return module
    if precision == "bf16" and not multiplies_bfloat16(device):
        raise InputError(
            f"precision: bf16 on this {device.type.upper()}, which has no instructions for it, is many times slower than fp32; "
            "choose fp32, or bf16_emulated to have it all the same"
        )
    return InBfloat16(module, device)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for matrix products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "cpu" or any(torch.cpu.get_capabilities().get(unit, False) for unit in _UNITS)


def recompute(module: nn.Module, wanted: bool) -> None:
    """Let every encoder in a module compute its layers twice, so that only their inputs are kept for the backward pass."""
    for part in module.modules():
        if isinstance(part, Encoder):
            part.recompute = wanted
