"""Heads that no family of checkpoints has a place for: their weights lie in a run's folder, beside `model/`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from bothways.errors import InputError
from bothways.files import replacing
from bothways.training.team import team


def save_beside(file: Path, head: nn.Module, about: Mapping[str, str] | None = None) -> None:
    """Write a head's weights, by the first process; the others wait."""
    with team().in_turn():
        if team().first:
            with replacing(file) as partial:
                save_file(head.state_dict(), partial, dict(about or {}))


def load_beside(file: Path, head: nn.Module) -> None:
    """Give a head its weights.

    Raises:
        InputError: they are of another shape.
    """
    try:
        head.load_state_dict(load_file(file))
    except RuntimeError as error:
        raise InputError(f"{file}: does not fit the head: {str(error).splitlines()[-1].strip()}") from None


def told_beside(file: Path) -> Mapping[str, str]:
    """What such a file says of itself."""
    with safe_open(file, "pt") as opened:
        return opened.metadata() or {}
