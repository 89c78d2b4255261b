"""Similarities between rows of vectors."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def cosine(a: Float[Tensor, "m size"], b: Float[Tensor, "n size"]) -> Float[Tensor, "m n"]:
    """The cosine of every row of `a` with every row of `b`."""
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T
