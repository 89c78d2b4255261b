"""What a user loads: Model, and its folders."""

from __future__ import annotations

from bothways.model.folder import load
from bothways.model.model import Model, Prediction

__all__ = ["Model", "Prediction", "load"]
