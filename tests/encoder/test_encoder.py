"""The encoder: what it keeps, refuses and reaches; and that the package's front door opens to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.builders import CONFIGS, HEADS, LAYERS, LONGEST, SIZE, gap, random_batch, random_ids, randomise, tiny_encoder
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import bothways
from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.families.modernbert import modernbert
from bothways.layers.attention import Attention, SelfAttention
from bothways.ops.attention import BY_LENGTH, REFERENCE
from bothways.ops.relative import alibi_slopes
from bothways.ragged import Batch


def test_public_names() -> None:
    assert bothways.Encoder is Encoder
    assert bothways.EncoderConfig is EncoderConfig


@pytest.mark.parametrize("name", CONFIGS)
def test_it_keeps_the_embedding_and_every_layer(name: str) -> None:
    encoder, batch = tiny_encoder(name), random_batch([5, 3])
    encoded = encoder(batch, keep=True)
    assert [layer.shape for layer in encoded.layers] == [(8, SIZE)] * (LAYERS + 1)
    assert torch.equal(encoded.layers[0], encoder.embedding(batch))
    assert torch.equal(encoder.final_norm(encoded.layers[-1]), encoded.hidden)
    assert encoder(batch).layers == ()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_backend_does_not_change_the_numbers(name: str) -> None:
    encoder, batch = tiny_encoder(name), random_batch([5, 200, 1, 5])
    out = []
    for backend in (REFERENCE, BY_LENGTH, None):
        encoder.backend = backend
        out.append(encoder(batch).hidden)
    assert gap(out[1], out[0]) <= 1e-5
    assert gap(out[2], out[0]) <= 1e-5


def test_too_long() -> None:
    encoder = tiny_encoder("bert")
    assert encoder(random_batch([LONGEST])).hidden.shape == (LONGEST, SIZE)
    with pytest.raises(InputError, match=f"{LONGEST + 1} tokens, the encoder takes at most {LONGEST}"):
        encoder(random_batch([3, LONGEST + 1]))


@pytest.mark.parametrize(("reach", "felt"), [(64, True), (65, False)])
def test_one_local_layer_reaches_64_tokens(reach: int, felt: bool) -> None:
    """Both ways, and not one further (arXiv 2412.13663: a window of 128, the token itself beside it)."""
    local = modernbert(vocab_size=101, hidden_size=24, num_layers=1, heads=3, intermediate_size=20, pattern=[False])
    encoder = Encoder(local)
    randomise(encoder)
    (ids,) = random_ids([300])
    for sign in (-1, 1):
        changed = ids.copy()
        changed[150 + sign * reach] = 5 + (ids[150 + sign * reach] + 1) % 90
        before, after = (encoder(Batch.of([x])).hidden for x in (ids, changed))
        assert (gap(after[150], before[150]) > 1e-6) == felt
        assert not torch.equal(after[150 + sign * reach], before[150 + sign * reach])


def test_the_first_layer_has_no_norm_before_it() -> None:
    names = {name for name, _ in tiny_encoder("modernbert").named_parameters()}
    assert "layers.0.mixer_norm.weight" not in names
    assert "layers.1.mixer_norm.weight" in names


@pytest.mark.parametrize("name", CONFIGS)
def test_flops_are_those_of_the_matrix_products(name: str) -> None:
    """Counted by torch where nothing is windowed and all sequences are equally long."""
    config = CONFIGS[name]
    full = tuple(
        replace(layer, mixer=replace(layer.mixer, window=None, global_tokens=False))
        if isinstance(layer.mixer, Attention)
        else layer
        for layer in config.layers
    )
    encoder, batch = Encoder(replace(config, layers=full)), random_batch([6, 6, 6])
    encoder.requires_grad_(False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder(batch)
    parts = encoder.flops_by_part(batch.ragged)
    assert encoder.flops(batch.ragged) == sum(parts.values()) == counter.get_total_flops()
    beside = {"convolution"} if config.convolution else set()
    assert set(parts) == {"embedding", "attention", "mlp"} | beside
    assert (parts["embedding"] == 0) == (config.embedding.size is None)
    factorised = Encoder(replace(config, embedding=replace(config.embedding, size=7)))
    # the map from the narrow table to the encoder's width
    assert factorised.flops_by_part(batch.ragged)["embedding"] == 2 * 18 * 7 * config.hidden_size


def test_a_causal_window_has_one_side() -> None:
    def pairs(causal: bool, window: int | None) -> float:
        mixer = SelfAttention(Attention(heads=3, window=window, causal=causal), 24)
        return (mixer.flops((30, 2)) - 2 * 32 * 4 * 24 * 24) / (4 * 24)

    assert pairs(True, 5) == 30 * 6 + 2 * 2
    assert pairs(False, 5) == 30 * 11 + 2 * 2
    # no window: kernels compute all pairs, and mask half
    assert pairs(True, None) == pairs(False, None) == 30 * 30 + 2 * 2


def test_flops_of_global_tokens() -> None:
    """A query and its row of scores each, projections of their own, and a key more for every other token."""
    mixer = SelfAttention(Attention(heads=3, window=5, global_tokens=True), 24)
    local = 2 * 30 * 4 * 24 * 24 + 4 * 24 * 30 * 11
    assert mixer.flops((30, 0)) == mixer.flops((30, 0), (0, 0)) == local
    own = 2 * 2 * 24 * 24 + 2 * 30 * 2 * 24 * 24
    assert mixer.flops((30, 0), (2, 0)) == local + own + 4 * 24 * 30 * 2 + 4 * 24 * 2 * 30


def test_slopes_are_made_once_a_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device that is a copy each; a layer makes none."""
    made: list[int] = []
    monkeypatch.setattr("bothways.encoder.encoder.alibi_slopes", lambda heads: made.append(heads) or alibi_slopes(heads))
    encoder = tiny_encoder("mosaicbert")
    encoder(random_batch([3, 5]))
    assert made == [HEADS]


def test_dropout_acts_in_training_alone() -> None:
    config = replace(CONFIGS["bert"], embedding=replace(CONFIGS["bert"].embedding, dropout=0.5))
    encoder, batch = Encoder(config), random_batch([20])
    assert not torch.equal(encoder.train()(batch).hidden, encoder(batch).hidden)
    assert torch.equal(encoder.eval()(batch).hidden, encoder(batch).hidden)
