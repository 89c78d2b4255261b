"""Bothways: bidirectional encoders, from raw text to search.

Importing the package imports nothing heavy: each public name brings its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bothways.encoder.config import EncoderConfig
    from bothways.encoder.encoder import Encoder
    from bothways.model import Model, load

__all__ = ["Encoder", "EncoderConfig", "Model", "__version__", "load"]

__version__ = "0.1.0"

_HOMES = {
    "Encoder": "bothways.encoder.encoder",
    "EncoderConfig": "bothways.encoder.config",
    "Model": "bothways.model",
    "load": "bothways.model",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'bothways' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
