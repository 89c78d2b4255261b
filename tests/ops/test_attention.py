"""Every attention backend computes the definition, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import gap, lengths_lists
from torch import Tensor

from bothways.ops.attention import BACKENDS, BY_LENGTH, BY_SEQUENCE, FLEX, REFERENCE, VARLEN, Backend, Score, attention, visible
from bothways.ops.disentangled import Disentangled, Rows
from bothways.ops.flex import flex
from bothways.ops.relative import Bucket, Distance, alibi_slopes
from bothways.ragged import Ragged

HEADS, WIDTH = 3, 4
windows = st.sampled_from([None, 0, 1, 2, 5, 100])


def draw(ragged: Ragged, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ragged.tokens, HEADS, WIDTH, generator=generator, dtype=dtype).requires_grad_()


def definition(q: Tensor, k: Tensor, v: Tensor, queries: Ragged, keys: Ragged, score: Score) -> Tensor:
    """Softmax attention written out: one query, one head at a time."""
    scale = 1 / math.sqrt(WIDTH) if score.scale is None else score.scale
    group = HEADS // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    rows = []
    for i in range(queries.sequences):
        near = k[keys.offsets[i] : keys.offsets[i + 1]], v[keys.offsets[i] : keys.offsets[i + 1]]
        for position, query in enumerate(q[queries.offsets[i] : queries.offsets[i + 1]]):
            if score.own:  # the shared keys, and one of the others
                mine = [*range(len(near[0]) - (queries.lengths[i])), len(near[0]) - queries.lengths[i] + position]
                scores = torch.einsum("hd,khd->hk", query, near[0][mine]) * scale
                rows.append(torch.einsum("hk,khd->hd", scores.softmax(dim=1), near[1][mine]))
                continue
            low = 0 if score.window is None else max(position - score.window, 0)
            high = len(near[0]) if score.window is None else position + score.window + 1
            one = slice(low, min(high, position + 1) if score.causal else high)
            if len(near[0][one]) == 0:
                rows.append(query * 0)
                continue
            scores = torch.einsum("hd,khd->hk", query, near[0][one]) * scale
            if score.edit is not None:
                columns = torch.arange(len(near[0]))[one]
                added = score.edit.dense(
                    query[None, :, None], near[0][one].transpose(0, 1)[None], torch.tensor([position]), columns
                )
                scores = scores + added[0, :, 0]
            rows.append(torch.einsum("hk,khd->hd", scores.softmax(dim=1), near[1][one]))
    return torch.stack(rows) if rows else q * 0


def with_gradients(run: object, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The output, and the gradients of a random linear functional of it."""
    out: Tensor = run()  # type: ignore[operator]
    slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=out.dtype).to(out.device)
    unique = tuple(dict.fromkeys(given))
    return out, *torch.autograd.grad((out * slope).sum(), unique, allow_unused=True, materialize_grads=True)


def assert_defined(backend: Backend | None, lengths: Sequence[int], others: Sequence[int] | None, score: Score) -> None:
    """The backend and the definition agree, gradients included; `others` are the keys' lengths if not the queries'."""
    queries = Ragged.of(lengths)
    keys = queries if others is None else Ragged.of(others)
    q, k, v = draw(queries, 0), draw(keys, 1), draw(keys, 2)
    found = with_gradients(lambda: attention(q, k, v, queries, keys, score, backend), (q, k, v))
    expected = with_gradients(lambda: definition(q, k, v, queries, keys, score), (q, k, v))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@settings(max_examples=40)
@given(lengths=lengths_lists, window=windows, scale=st.sampled_from([None, 0.3]))
@pytest.mark.parametrize("backend", [REFERENCE, BY_LENGTH, None], ids=lambda one: one.name if one else "dispatched")
def test_a_backend_computes_the_definition(
    backend: Backend | None, lengths: list[int], window: int | None, scale: float | None
) -> None:
    assert_defined(backend, lengths, None, Score(window=window, scale=scale))


TABLE = torch.randn(HEADS, 10, WIDTH, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
EDITS = {
    "none": None,
    "distance": Distance(torch.tensor(alibi_slopes(HEADS))),
    "bucket": Bucket(torch.randn(8, HEADS, generator=torch.Generator().manual_seed(4), dtype=torch.float64), 6),
    "first_apart": Bucket(torch.randn(9, HEADS, generator=torch.Generator().manual_seed(5), dtype=torch.float64), 6, True),
    "both": Disentangled(TABLE, TABLE.flip(1), Rows(5, None, 5), 0, 0.7),
    "keys": Disentangled(TABLE, None, Rows(5, 5, 9), 0, 0.7),
    "queries": Disentangled(None, TABLE, Rows(5, None, 5), 0, 0.7),
    "neither": Disentangled(None, None, Rows(5, None, 5), 0, 0.7),
}


@settings(max_examples=30)
@given(lengths=lengths_lists, window=windows, causal=st.booleans(), edit=st.sampled_from(sorted(EDITS)))
@pytest.mark.parametrize("backend", [REFERENCE, BY_LENGTH, None], ids=lambda one: one.name if one else "dispatched")
def test_causal_and_edited_scores(
    backend: Backend | None, lengths: list[int], window: int | None, causal: bool, edit: str
) -> None:
    assert_defined(backend, lengths, None, Score(window=window, causal=causal, edit=EDITS[edit]))


def single(edit: Any) -> Any:
    """An edit with its tables in float32."""
    tables = {f.name: getattr(edit, f.name) for f in fields(edit)} if edit else {}
    return edit and replace(edit, **{name: table.float() for name, table in tables.items() if isinstance(table, Tensor)})


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("edit", sorted(EDITS))
@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_computes_the_definition(window: int | None, causal: bool, edit: str) -> None:
    """Uncompiled, which torch offers on the CPU as well: in float32, the widest it has there, and forward only."""
    ragged = Ragged.of([7, 0, 1, 40, 7])
    q, k, v = (draw(ragged, seed, torch.float32).detach() for seed in range(3))
    added = EDITS[edit]
    score = Score(window=window, causal=causal, edit=single(added))
    expected = definition(q, k, v, ragged, ragged, score)
    torch.testing.assert_close(flex(q, k, v, ragged, ragged, score), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("window", [None, 30])
@pytest.mark.parametrize("edit", sorted(EDITS))
def test_long_sequences_taken_in_blocks(window: int | None, edit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of queries that do not divide the length, each with the columns it sees."""
    monkeypatch.setattr("bothways.ops.attention._ADDED", 400 * HEADS * 7)
    assert_defined(BY_LENGTH, [400], None, Score(window=window, causal=True, edit=EDITS[edit]))


def test_edits_between_different_packings() -> None:
    assert_defined(None, [2, 0, 3], [4, 1, 0], Score(edit=EDITS["distance"]))


@pytest.mark.parametrize("backend", [REFERENCE, BY_LENGTH])
def test_fewer_heads_of_keys_serve_groups_of_queries(backend: Backend) -> None:
    ragged = Ragged.of([5, 3, 5])
    q = draw(ragged, 0)
    k, v = (draw(ragged, seed)[:, :1].detach().requires_grad_() for seed in (1, 2))
    found = with_gradients(lambda: attention(q, k, v, ragged, ragged, Score(), backend), (q, k, v))
    expected = with_gradients(lambda: definition(q, k, v, ragged, ragged, Score()), (q, k, v))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@settings(max_examples=40)
@given(pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=6))
@pytest.mark.parametrize("backend", [REFERENCE, BY_LENGTH, None], ids=lambda one: one.name if one else "dispatched")
def test_queries_and_keys_may_have_different_lengths(backend: Backend | None, pairs: list[tuple[int, int]]) -> None:
    assert_defined(backend, [a for a, _ in pairs], [b for _, b in pairs], Score())


@settings(max_examples=40)
@given(pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=6))
@pytest.mark.parametrize("backend", [REFERENCE, BY_LENGTH, BY_SEQUENCE, None], ids=lambda one: one.name if one else "dispatched")
def test_keys_of_ones_own(backend: Backend | None, pairs: list[tuple[int, int]]) -> None:
    assert_defined(backend, [a for a, _ in pairs], [a + b for a, b in pairs], Score(own=True))


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_keys_of_ones_own_in_flex() -> None:
    queries, keys = Ragged.of([3, 1, 2]), Ragged.of([9, 1, 7])
    q, k, v = (draw(one, seed, torch.float32).detach() for seed, one in enumerate((queries, keys, keys)))
    score = Score(own=True)
    found = flex(q, k, v, queries, keys, score)
    torch.testing.assert_close(found, definition(q, k, v, queries, keys, score), rtol=0, atol=1e-5)


@pytest.mark.parametrize("edit", sorted(EDITS))
@pytest.mark.parametrize("window", [None, 2])
def test_positions_that_are_not_the_numbers_of_rows(edit: str, window: int | None) -> None:
    """One sequence after the other is the definition over all at once, wherever queries stand."""
    queries, keys = Ragged.of([2, 0, 3, 1]), Ragged.of([6, 2, 8, 0])
    queries = replace(queries, positions=torch.tensor([5, 1, 0, 7, 7, 0]))
    q, k, v = draw(queries, 0), draw(keys, 1), draw(keys, 2)
    score = Score(window=window, edit=EDITS[edit])
    found, expected = (
        with_gradients(lambda one=one: attention(q, k, v, queries, keys, score, one), (q, k, v)) for one in (None, REFERENCE)
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [(3, 3, 5, 5, 7), (7, 5, 5, 3, 3), (5, 3, 7, 3, 5), (3, 0, 3, 0)], ids=str)
@pytest.mark.parametrize("window", [None, 1])
def test_sorted_or_not(order: tuple[int, ...], window: int | None) -> None:
    assert_defined(BY_LENGTH, order, None, Score(window=window))


@pytest.mark.parametrize("window", [1, 4, 63, 64, 65, 100])
@pytest.mark.parametrize("lengths", [(192,), (193,), (257, 500), (1000, 3, 1000)], ids=str)
def test_sequences_many_times_the_window(lengths: tuple[int, ...], window: int) -> None:
    """Long sequences go block by block: a seam in the wrong place would show."""
    ragged = Ragged.of(lengths)
    q, k, v = (draw(ragged, seed) for seed in range(3))
    score = Score(window=window)
    found = with_gradients(lambda: attention(q, k, v, ragged, ragged, score, BY_LENGTH), (q, k, v))
    expected = with_gradients(lambda: attention(q, k, v, ragged, ragged, score, REFERENCE), (q, k, v))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [None, 2])
def test_float32(window: int | None) -> None:
    ragged = Ragged.of((40, 7, 300, 1))
    q, k, v = (draw(ragged, seed, torch.float32) for seed in range(3))
    score = Score(window=window)
    found = with_gradients(lambda: attention(q, k, v, ragged, ragged, score, BY_LENGTH), (q, k, v))
    expected = with_gradients(lambda: attention(q, k, v, ragged, ragged, score, REFERENCE), (q, k, v))
    assert all(gap(ours, theirs) <= 1e-5 for ours, theirs in zip(found, expected, strict=True))


def test_the_window_ends_where_it_says() -> None:
    """Token t + 64 is seen and t + 65 is not: 129 keys, as in ModernBERT."""
    ragged = Ragged.of([400])
    q, k, v = (draw(ragged, seed) for seed in range(3))
    out = attention(q, k, v, ragged, ragged, Score(window=64))
    (gradient,) = torch.autograd.grad(out[200].sum(), v)
    seen = gradient.abs().sum(dim=(1, 2)).nonzero().flatten()
    assert (seen.min(), seen.max(), len(seen)) == (200 - 64, 200 + 64, 129)


def test_a_hand_worked_softmax() -> None:
    """Scores 0 and ln 3 give weights 1/4 and 3/4."""
    ragged = Ragged.of([1])
    keys = Ragged.of([2])
    k = torch.tensor([[[0.0]], [[math.log(3)]]])
    v = torch.tensor([[[8.0]], [[4.0]]])
    for backend in (REFERENCE, BY_LENGTH):
        assert attention(torch.ones(1, 1, 1), k, v, ragged, keys, Score(), backend).item() == pytest.approx(5.0)


def test_visible_pairs() -> None:
    ragged = Ragged.of([2, 0, 3])
    assert visible(ragged, ragged, Score(window=1)).int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize("backend", [REFERENCE, BY_LENGTH], ids=lambda one: one.name)
@pytest.mark.parametrize("window", [None, 2])
def test_dropout_keeps_the_mean(backend: Backend, window: int | None) -> None:
    ragged = Ragged.of([6, 9])
    q, k = draw(ragged, 0), draw(ragged, 1)
    v = torch.ones_like(k, requires_grad=True)
    score = Score(window=window, dropout=0.5)
    draws = torch.stack([attention(q, k, v, ragged, ragged, score, backend) for _ in range(300)])
    assert draws.std() > 0.1
    assert draws.mean().item() == pytest.approx(1.0, abs=0.05)
    draws.sum().backward()
    assert torch.isfinite(v.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_nothing_to_attend(lengths: list[int]) -> None:
    ragged = Ragged.of(lengths)
    empty = torch.zeros(0, HEADS, WIDTH)
    for backend in (REFERENCE, BY_LENGTH, None):
        assert attention(empty, empty, empty, ragged, ragged, Score(), backend).shape == (0, HEADS, WIDTH)


def test_refusals() -> None:
    one, two = Ragged.of([2]), Ragged.of([1, 1])
    x = torch.zeros(2, HEADS, WIDTH)
    with pytest.raises(ValueError, match="1 query sequences but 2 key sequences"):
        attention(x, x, x, one, two, Score())
    with pytest.raises(ValueError, match="'varlen' cannot serve"):
        attention(x, x, x, one, one, Score(), VARLEN)


def test_the_dispatcher_serves_every_call() -> None:
    """A window between different packings is computed sequence by sequence: rows are not positions there."""
    queries, keys = Ragged.of([2, 3]), Ragged.of([4, 1])
    can = [one.name for one in BACKENDS if one.can(torch.zeros(5, HEADS, WIDTH), queries, keys, Score(window=1))]
    assert can == ["by_sequence"]
    assert_defined(None, [2, 3], [4, 1], Score(window=1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("window", [None, 16, 64])
@pytest.mark.parametrize(("backend", "edit"), [(VARLEN, "none"), (FLEX, "none"), (FLEX, "distance"), (FLEX, "bucket")])
def test_half_precision_is_as_good_as_bf16_allows(backend: Backend, edit: str, window: int | None) -> None:
    """The error against float32 is at most twice that of the reference in the same bf16."""
    ragged = Ragged.of((200, 17, 1, 333)).to("cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    exact = [torch.randn(ragged.tokens, HEADS, 64, generator=generator, device="cuda").requires_grad_() for _ in range(3)]
    half = [x.detach().bfloat16().requires_grad_() for x in exact]
    table = torch.randn(8, HEADS, generator=generator, device="cuda")
    edits = {"none": None, "distance": Distance(torch.tensor(alibi_slopes(HEADS)).cuda()), "bucket": Bucket(table, 100)}
    score = Score(window=window, edit=edits[edit])
    truth = with_gradients(lambda: attention(*exact, ragged, ragged, score, REFERENCE), tuple(exact))  # type: ignore[call-arg]
    reference = with_gradients(lambda: attention(*half, ragged, ragged, score, REFERENCE), tuple(half))  # type: ignore[call-arg]
    ours = with_gradients(lambda: attention(*half, ragged, ragged, score, backend), tuple(half))  # type: ignore[call-arg]
    for fast, plain, true in zip(ours, reference, truth, strict=True):
        assert gap(fast.float(), true) <= 2 * gap(plain.float(), true)
