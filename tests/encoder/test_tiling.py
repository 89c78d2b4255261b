"""A larger encoder from a smaller: every tensor by the formula, element by element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.builders import CONFIGS, VOCAB, gap, random_batch, tiny_encoder
from torch import Tensor

from bothways.encoder.config import EncoderConfig, Groups
from bothways.encoder.encoder import Encoder
from bothways.encoder.tiling import layer_map, tile, tile_encoder
from bothways.errors import InputError
from bothways.families.bert import bert
from bothways.families.eurobert import eurobert
from bothways.families.longformer import longformer
from bothways.families.m2bert import m2bert
from bothways.families.modernbert import SIZES, modernbert
from bothways.layers.position import Bucketed, Disentangled

MODERNBERT = {"vocab_size": VOCAB, "max_length": 256, "window": 4}


def larger(encoder: Encoder, config: EncoderConfig) -> Encoder:
    with torch.device("meta"):
        new = Encoder(config)
    shapes = {name: tensor.shape for name, tensor in new.state_dict().items()}
    new.load_state_dict(tile_encoder(encoder.state_dict(), encoder.config, config, shapes), assign=True)
    return new.eval()


def by_hand(old: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The formula, one element at a time."""
    new = torch.empty(shape)
    for place in torch.cartesian_prod(*(torch.arange(size) for size in shape)).view(-1, len(shape)).tolist():
        source = [(j - (big - small) // 2) % small for j, big, small in zip(place, shape, old.shape, strict=True)]
        new[tuple(place)] = old[tuple(source)]
    return new


def test_the_published_map_of_layers() -> None:
    """ModernBERT: 22 layers to 28, with Python's rounding (golden list of the published code)."""
    base, large = SIZES["base"], SIZES["large"]
    assert layer_map(base.num_layers, large.num_layers) == [
        0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 12, 13, 13, 14, 15, 16, 16, 17, 18, 19, 20, 20, 21,
    ]  # fmt: skip


@pytest.mark.parametrize("new", [5, 6, 11, 40])
def test_the_map_stays_inside(new: int) -> None:
    origins = layer_map(5, new)
    assert origins == sorted(origins)
    assert set(origins) == set(range(5))


def test_a_hand_worked_tile() -> None:
    assert tile(torch.tensor([1.0, 2.0, 3.0]), (8,)).tolist() == [2, 3, 1, 2, 3, 1, 2, 3]
    assert tile(torch.tensor([[1.0, 2.0]]), (2, 3)).tolist() == [[1, 2, 1], [1, 2, 1]]


def thirds(name: str, tensor: Tensor) -> list[Tensor]:
    """Queries, keys and values, or the halves of a gated MLP, apart."""
    return list(tensor.chunk(3 if ".qkv." in name else 2 if ".up." in name else 1))


def test_every_tensor_is_by_the_formula() -> None:
    encoder = tiny_encoder("modernbert")
    config = modernbert(**MODERNBERT, hidden_size=40, num_layers=7, heads=5, intermediate_size=28)
    new, origins = larger(encoder, config), layer_map(5, 7)
    assert origins == [0, 1, 1, 2, 3, 4, 4]
    old = encoder.state_dict()
    for name, tensor in new.state_dict().items():
        first, _, rest = name.partition(".")
        number, _, inner = rest.partition(".")
        source = old[f"layers.{origins[int(number)]}.{inner}" if first == "layers" else name]
        for ours, theirs in zip(thirds(name, tensor), thirds(name, source), strict=True):
            assert torch.equal(ours, by_hand(theirs, tuple(ours.shape))), name
    with torch.no_grad():
        assert new(random_batch([7, 30])).hidden.isfinite().all()


def test_grouped_heads_are_tiled_apart() -> None:
    sizes = {"vocab_size": VOCAB, "intermediate_size": 20, "max_length": 256}
    old = Encoder(eurobert(**sizes, hidden_size=24, num_layers=2, heads=3, kv_heads=1))
    new = larger(old, eurobert(**sizes, hidden_size=32, num_layers=2, heads=4, kv_heads=2))
    q, k, v = new.state_dict()["layers.1.mixer.qkv.weight"].split((32, 16, 16))
    for part, source in zip((q, k, v), old.state_dict()["layers.1.mixer.qkv.weight"].split((24, 8, 8)), strict=True):
        assert torch.equal(part, by_hand(source, tuple(part.shape)))


def parts_of(tensor: Tensor, count: int, sources: Tensor) -> None:
    for part, source in zip(tensor.chunk(count), sources.chunk(count), strict=True):
        assert torch.equal(part, by_hand(source, tuple(part.shape)))


def test_keys_and_values_of_global_tokens_are_tiled_apart() -> None:
    sizes = {"vocab_size": VOCAB, "num_layers": 2, "intermediate_size": 20, "max_length": 64, "windows": 4}
    old = Encoder(longformer(**sizes, hidden_size=24, heads=3))
    new = larger(old, longformer(**sizes, hidden_size=40, heads=5)).state_dict()
    for name in ("weight", "bias"):
        name = f"layers.1.mixer.everywhere.key_value.{name}"
        parts_of(new[name], 2, old.state_dict()[name])


def test_the_three_projections_of_a_convolution_are_tiled_apart() -> None:
    sizes = {"vocab_size": VOCAB, "num_layers": 2, "intermediate_size": 20, "max_length": 32, "width": 8}
    old = Encoder(m2bert(**sizes, hidden_size=24))
    new = larger(old, m2bert(**sizes, hidden_size=40)).state_dict()
    for name in ("project.weight", "project.bias", "short.weight", "short.bias"):
        parts_of(new[f"layers.1.mixer.{name}"], 3, old.state_dict()[f"layers.1.mixer.{name}"])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("m2_bert", {"length": 400}, r"layers.0.mixer.length is 256, not 400"),
        ("m2_bert", {"features": 7}, r"layers.0.mixer.features is 5, not 7"),
        ("mpnet", {"position": Bucketed(buckets=64)}, r"mixer.position is Bucketed\(.*buckets=32.*, not .*buckets=64"),
        ("deberta", {"position": Disentangled(max_distance=9)}, r"mixer.position is Disentangled\(.*, not .*max_distance=9"),
    ],
)
def test_tables_of_positions_are_not_tiled(name: str, change: dict[str, Any], message: str) -> None:
    """Rows that come round again would be other distances, or places outside the text."""
    encoder = tiny_encoder(name)
    layers = tuple(replace(layer, mixer=replace(layer.mixer, **change)) for layer in encoder.config.layers)
    with pytest.raises(InputError, match=message):
        larger(encoder, replace(encoder.config, layers=layers))


def test_other_rotary_positions_have_no_table() -> None:
    """A local layer may begin as a global one, as in the published pair."""
    config = modernbert(**MODERNBERT, hidden_size=24, num_layers=7, heads=3, intermediate_size=20)
    encoder = tiny_encoder("modernbert")
    positions = [(encoder.config.layer(old).mixer, config.layer(new).mixer) for new, old in enumerate(layer_map(5, 7))]
    assert any(one != two for one, two in positions)
    larger(encoder, config)


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config.shared is None])
def test_the_same_shape_is_the_same_encoder(name: str) -> None:
    encoder = tiny_encoder(name)
    state = larger(encoder, encoder.config).state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in encoder.state_dict().items())


def test_width_copied_whole_keeps_a_norm_s_statistics() -> None:
    """Twice as wide, embeddings repeat: a norm makes of them what it made, twice."""
    encoder = tiny_encoder("modernbert")
    config = modernbert(**MODERNBERT, hidden_size=48, num_layers=5, heads=6, intermediate_size=40)
    batch = random_batch([9])
    with torch.no_grad():
        old, new = encoder.embed(batch)[0], larger(encoder, config).embed(batch)[0]
    assert gap(new, tile(old, tuple(new.shape))) <= 1e-5


def test_a_first_norm_that_is_not_there_begins_as_ones() -> None:
    encoder = tiny_encoder("modernbert", layers=2)
    new = larger(encoder, replace(encoder.config, num_layers=4))
    assert layer_map(2, 4) == [0, 0, 1, 1]
    assert torch.equal(new.state_dict()["layers.1.mixer_norm.weight"], torch.ones(24))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: replace(config, num_layers=2), "tiling makes encoders larger: 5 layers of 24 features"),
        (lambda config: replace(config, vocab_size=120), "vocab_size is 101, not 120"),
        (lambda config: replace(config, max_length=300), "max_length is 256, not 300"),
        (lambda config: replace(config, shared=Groups()), "an encoder with shared layers is not tiled"),
        (lambda config: replace(config, final_norm=config.embedding.norm), "nothing that final_norm.weight could begin as"),
    ],
)
def test_what_cannot_be_tiled(change: Callable[[EncoderConfig], EncoderConfig], message: str) -> None:
    encoder = Encoder(bert(VOCAB, 24, 5, 3, 20, 256))
    with pytest.raises(InputError, match=message):
        larger(encoder, change(encoder.config))
