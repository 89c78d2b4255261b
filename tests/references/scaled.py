"""Rotary positions of `transformers` in every way that is supported, at the tiny sizes of the tests."""

from __future__ import annotations

from typing import Any

LINEAR = {"rope_type": "linear", "factor": 3.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "beta_fast": 8.0, "beta_slow": 0.5}
# heads have four frequencies: with a base of 50 and texts of 64 tokens, some are slow, some fast, one between
_BASE = {"rope_theta": 50.0}
_LENGTH = {"original_max_position_embeddings": 64}
SCALED: dict[str, dict[str, Any]] = {
    "linear": {**LINEAR, **_BASE},
    "llama3": {**LLAMA3, **_BASE, **_LENGTH},
    "yarn": {**YARN, **_BASE, **_LENGTH},
    "yarn-defaults": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, **_LENGTH},
    "yarn-mscale": {**YARN, **_BASE, **_LENGTH, "mscale": 0.7, "mscale_all_dim": 1.3, "truncate": False},
    "yarn-factor": {**YARN, **_BASE, **_LENGTH, "attention_factor": 0.8},
}
