"""Cosines by hand."""

from __future__ import annotations

import torch

from bothways.ops.similarity import cosine


def test_golden() -> None:
    a, b = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, -2.0], [6.0, 8.0]])
    torch.testing.assert_close(cosine(a, b), torch.tensor([[0.6, -0.8, 1.0], [0.0, 0.0, 0.0]]))
