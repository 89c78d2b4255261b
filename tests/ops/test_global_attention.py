"""Attention with global tokens computes the definition, forward and backward, both ways."""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import lengths_lists
from tests.ops.test_attention import HEADS, WIDTH, draw, with_gradients
from torch import Tensor

from bothways.ops.attention import BY_LENGTH, REFERENCE, VARLEN, Backend, Score, attention
from bothways.ops.global_attention import Globals, global_attention
from bothways.ops.relative import Distance, alibi_slopes
from bothways.ragged import Ragged

backends = pytest.mark.parametrize("backend", [REFERENCE, BY_LENGTH, None], ids=lambda one: one.name if one else "dispatched")


def definition(
    local: tuple[Tensor, ...], wide: tuple[Tensor, ...], mask: Tensor, ragged: Ragged, window: int, scale: float
) -> Tensor:
    """Written out: one query at a time."""
    rows, taken = [], 0
    for first, last in zip(ragged.offsets, ragged.offsets[1:], strict=False):
        everything = range(first, last)
        for row in everything:
            if mask[row]:
                q, (k, v), seen = wide[0][taken], wide[1:], list(everything)
                taken += 1
            else:
                q, (k, v) = local[0][row], local[1:]
                seen = [other for other in everything if abs(other - row) <= window or mask[other]]
            weights = (torch.einsum("hd,khd->hk", q, k[seen]) * scale).softmax(dim=1)
            rows.append(torch.einsum("hk,khd->hd", weights, v[seen]))
    return torch.stack(rows)


def drawn(lengths: list[int], share: float, seed: int = 0) -> tuple[Ragged, Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Boundaries, a mask of about this share of the tokens, and both sets of queries, keys and values."""
    ragged = Ragged.of(lengths)
    mask = torch.from_numpy(np.random.default_rng(seed).random(ragged.tokens) < share)
    local, wide = (tuple(draw(ragged, number + one) for number in range(3)) for one in (0, 3))
    return ragged, mask, local, (wide[0][mask].detach().requires_grad_(), *wide[1:])


def assert_defined(backend: Backend | None, lengths: list[int], share: float, window: int, seed: int = 0) -> None:
    ragged, mask, local, wide = drawn(lengths, share, seed)
    everywhere = Globals.of(mask, ragged)
    if everywhere is None:
        assert not mask.any()
        return
    score = Score(window=window, scale=0.3 if seed % 2 else None)
    found = with_gradients(lambda: global_attention(local, wide, everywhere, ragged, score, backend), (*local, *wide))
    scale = score.scale or 1 / math.sqrt(WIDTH)
    expected = with_gradients(lambda: definition(local, wide, mask, ragged, window, scale), (*local, *wide))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@backends
@settings(max_examples=40)
@given(
    lengths=lengths_lists, share=st.sampled_from([0.1, 0.4, 1.0]), window=st.sampled_from([1, 2, 5, 100]), seed=st.integers(0, 9)
)
def test_a_backend_computes_the_definition(
    backend: Backend | None, lengths: list[int], share: float, window: int, seed: int
) -> None:
    assert_defined(backend, lengths, share, window, seed)


@pytest.mark.parametrize("window", [1, 64, 65, 100])
@pytest.mark.parametrize("lengths", [(193,), (257, 500), (400, 3, 400, 0)], ids=str)
def test_sequences_many_times_the_window(lengths: tuple[int, ...], window: int) -> None:
    """Long sequences go block by block, with global tokens in the block, beside it and far away."""
    ragged, mask, local, wide = drawn(list(lengths), 0.02, seed=3)
    everywhere = Globals.of(mask, ragged)
    assert everywhere is not None
    ways = [
        with_gradients(lambda: global_attention(local, wide, everywhere, ragged, Score(window=window), one), (*local, *wide))  # noqa: B023
        for one in (BY_LENGTH, REFERENCE)
    ]
    for ours, theirs in zip(*ways, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@backends
def test_equal_projections_and_no_far_keys_are_plain_attention(backend: Backend | None) -> None:
    """Where the window holds everything, nothing is counted twice."""
    ragged, mask, local, _ = drawn([9, 14, 9], 0.3)
    everywhere = Globals.of(mask, ragged)
    assert everywhere is not None
    same = (local[0][mask], *local[1:])
    plain = attention(*local, ragged, ragged, Score())
    found = global_attention(local, same, everywhere, ragged, Score(window=13), backend)  # type: ignore[arg-type]
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)


def test_no_mask_of_all_pairs_is_made() -> None:
    """What a call of SDPA sees grows with the window, not with the length; global rows have no mask at all."""
    ragged = Ragged.of([2000])
    mask = torch.zeros(2000, dtype=torch.bool)
    mask[[0, 700]] = True
    everywhere = Globals.of(mask, ragged)
    local = tuple(torch.zeros(2000, HEADS, WIDTH) for _ in range(3))
    seen: list[tuple[int, int]] = []
    real = F.scaled_dot_product_attention

    def watch(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        seen.append((q.shape[2], k.shape[2]))
        assert (options["attn_mask"] is None) == (q.shape[2] == 2)
        return real(q, k, v, **options)

    with patch.object(F, "scaled_dot_product_attention", watch):
        global_attention(local, (local[0][:2], *local[1:]), everywhere, ragged, Score(window=64))  # type: ignore[arg-type]
    assert max(keys for queries, keys in seen if queries > 2) <= 4 * 64 + 2
    assert sum(queries * keys for queries, keys in seen) < 2000 * 300


@pytest.mark.parametrize("mask", [[], [False] * 5])
def test_no_globals_are_none(mask: list[bool]) -> None:
    assert Globals.of(torch.tensor(mask, dtype=torch.bool), Ragged.of([len(mask)])) is None


def test_globals_are_counted_by_sequence() -> None:
    mask = torch.tensor([0, 1, 0, 0, 1, 1], dtype=torch.bool)
    found = Globals.of(mask, Ragged.of([0, 2, 2, 0, 2]))
    assert found is not None
    assert (found.rows.tolist(), found.ragged.lengths) == ([1, 4, 5], (0, 1, 0, 0, 2))


@backends
def test_dropout_keeps_the_mean(backend: Backend | None) -> None:
    ragged, mask, local, wide = drawn([6, 9], 0.3)
    everywhere = Globals.of(mask, ragged)
    assert everywhere is not None
    ones = torch.ones_like(local[2])
    score = Score(window=2, dropout=0.5)
    draws = torch.stack(
        [global_attention((*local[:2], ones), (*wide[:2], ones), everywhere, ragged, score, backend) for _ in range(300)]
    )
    assert draws.std() > 0.1
    assert draws.mean().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("backend", "score"),
    [
        (VARLEN, Score(window=2)),
        (None, Score(window=2, causal=True)),
        (BY_LENGTH, Score(window=2, edit=Distance(torch.tensor(alibi_slopes(HEADS))))),
    ],
)
def test_refusals(backend: Backend | None, score: Score) -> None:
    ragged, mask, local, wide = drawn([5], 1.0)
    everywhere = Globals.of(mask, ragged)
    assert everywhere is not None
    with pytest.raises(ValueError, match="cannot be served by the backend"):
        global_attention(local, wide, everywhere, ragged, score, backend)  # type: ignore[arg-type]
