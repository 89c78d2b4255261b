"""Layers compiled by torch, in place: names of weights stay, and each kind of layer is one graph where shapes never change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bothways.encoder.encoder import Encoder, EncoderLayer
from bothways.errors import InputError
from bothways.ops.graphs import leave_out

BACKEND = "inductor"  # torch's own


def compile_layers(module: nn.Module, wanted: bool, device: torch.device) -> None:
    """Let every encoder layer in a module be compiled when it is first called, or be as it was.

    Raises:
        InputError: there is no compiler; an encoder whose shapes cannot be fixed.
    """
    layers = _layers(module)
    if wanted and layers:
        for part in module.modules():
            if isinstance(part, Encoder) and part.config.filler is not None:
                what = "this encoder fills every text up, and its batches have as many tokens as texts make"
                raise InputError(f"training.compile: {what}; set it to false")
        _try(device)
        leave_out()
    for layer in layers:
        if wanted:
            layer.compile(dynamic=False, backend=BACKEND)
        else:
            layer._compiled_call_impl = None  # torch has no other way back


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """The layers as they were: for inputs of any shape, each of which would be compiled."""
    compiled = {layer: layer._compiled_call_impl for layer in _layers(module)}
    for layer in compiled:
        layer._compiled_call_impl = None
    try:
        yield
    finally:
        for layer, call in compiled.items():
            layer._compiled_call_impl = call


def _layers(module: nn.Module) -> list[EncoderLayer]:
    return [part for part in module.modules() if isinstance(part, EncoderLayer)]


def _try(device: torch.device) -> None:
    """Compile something small: what is lacking is said now, and in a line."""
    try:
        torch.compile(_small, dynamic=False, backend=BACKEND)(torch.ones(8, device=device))
    except Exception as error:  # torch's own, the system's, those of the compilers behind it
        cause = str(error).strip().split("\n")[0]
        needed = "a C++ compiler (g++ or clang)" if device.type == "cpu" else "Triton and a C compiler"
        what = f"torch cannot compile for this {device.type.upper()} ({cause})"
        raise InputError(f"training.compile: {what}; install {needed}, or set it to false") from error


def _small(x: torch.Tensor) -> torch.Tensor:
    return (x + 1).exp()
