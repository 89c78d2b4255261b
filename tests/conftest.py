"""What the tests share: real data where it is at hand, and fixed seeds."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data: $BOTHWAYS_SHARED, else `shared` beside the repository."""
    folder = Path(os.environ.get("BOTHWAYS_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set BOTHWAYS_SHARED to its folder")
    return folder


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # for libraries that draw from numpy's global generator
    torch.manual_seed(0)
