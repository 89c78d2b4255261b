"""Parity would notice a wrong model: each classic mistake, made on purpose, is far outside the tolerance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from tests.builders import HEADS, LAYERS, SIZE, WINDOW
from tests.parity.test_parity import TOLERANCE, outputs, run, worst
from tests.references import CASES
from torch import Tensor

from bothways.encoder.config import EncoderConfig, Layer
from bothways.layers.attention import Attention
from bothways.layers.position import Disentangled, Learned, Rotary
from bothways.model.model import Model
from bothways.ops import disentangled

State = dict[str, Tensor]
Mutation = Callable[[EncoderConfig, State], EncoderConfig]


def _case(name: str) -> Any:
    return next(case for case in CASES if str(case) == name)


def _mixers(config: EncoderConfig, change: Callable[[Attention], Attention]) -> EncoderConfig:
    layers: tuple[Layer, ...] = tuple(replace(layer, mixer=change(layer.mixer)) for layer in config.layers)
    return replace(config, layers=layers)


def theta(old: float, config: EncoderConfig, state: State) -> EncoderConfig:
    """The layers of one rotary base take another."""

    def change(mixer: Attention) -> Attention:
        assert isinstance(mixer.position, Rotary)
        return replace(mixer, position=Rotary(theta=2 * old)) if mixer.position.theta == old else mixer

    return _mixers(config, change)


def window(by: int, config: EncoderConfig, state: State) -> EncoderConfig:
    return _mixers(config, lambda mixer: replace(mixer, window=WINDOW + by) if mixer.window else mixer)


def swapped_halves(config: EncoderConfig, state: State) -> EncoderConfig:
    for i in range(LAYERS):
        name = f"layers.{i}.mlp.up.weight"
        state[name] = torch.cat(state[name].chunk(2)[::-1])
    return config


def side_by_side(config: EncoderConfig, state: State) -> EncoderConfig:
    """Rows of queries and keys left in the interleaved order of rotary pairs."""
    for i in range(LAYERS):
        name = f"layers.{i}.mixer.qkv.weight"
        q, k, v = state[name].view(3, HEADS, SIZE // HEADS, SIZE)
        q, k = (part.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2) for part in (q, k))
        state[name] = torch.stack((q, k, v)).flatten(0, 2)
    return config


def by_head(config: EncoderConfig, state: State) -> EncoderConfig:
    """`qkv` rows read as queries, keys, values of all heads where they lie head by head."""
    for i in range(LAYERS):
        name = f"layers.{i}.mixer.qkv.weight"
        state[name] = state[name].view(3, HEADS, SIZE // HEADS, SIZE).transpose(0, 1).flatten(0, 2)
    return config


def first_norm(config: EncoderConfig, state: State) -> EncoderConfig:
    state["layers.0.mixer_norm.weight"] = torch.ones(SIZE)
    return replace(config, skip_first_norm=False)


def late_globals(config: EncoderConfig, state: State) -> EncoderConfig:
    """Every third layer global, but counted from the other end."""
    return replace(config, layers=config.layers[1:] + config.layers[:1], skip_first_norm=True)


def other_gelu(config: EncoderConfig, state: State) -> EncoderConfig:
    swap = {"gelu": "gelu_tanh", "gelu_tanh": "gelu"}
    return replace(config, layers=tuple(replace(x, mlp=replace(x.mlp, activation=swap[x.mlp.activation])) for x in config.layers))


def no_offset(config: EncoderConfig, state: State) -> EncoderConfig:
    embedding = replace(config.embedding, position=Learned(offset=0))
    return replace(config, embedding=embedding, max_length=config.max_length + 2)


def no_types(config: EncoderConfig, state: State) -> EncoderConfig:
    """Every token of the first type."""
    state["embedding.types.weight"][1] = state["embedding.types.weight"][0]
    return config


def _positions(config: EncoderConfig, **changes: Any) -> EncoderConfig:
    def change(mixer: Attention) -> Attention:
        assert isinstance(mixer.position, Disentangled)
        return replace(mixer, position=replace(mixer.position, **changes))

    return _mixers(config, change)


def scaled_by_the_head_alone(config: EncoderConfig, state: State) -> EncoderConfig:
    """Scores divided by the root of the head size, and not of three times that: the logits are as if queries were larger."""
    for name in state:
        if ".mixer.q" in name:
            state[name][: SIZE if "qkv" in name else None] *= 3**0.5
    return config


def a_bias_of_keys(config: EncoderConfig, state: State) -> EncoderConfig:
    for i in range(LAYERS):
        name = f"layers.{i}.mixer."
        query, value = state.pop(name + "query_bias"), state.pop(name + "value_bias")
        state[name + "qkv.bias"] = torch.cat((query, query, value))
        if name + "relative.key.weight" in state:
            state[name + "relative.key.bias"] = torch.zeros(SIZE)
    return _mixers(config, lambda mixer: replace(mixer, key_bias=True))


def other_furthest(by: int, config: EncoderConfig, state: State) -> EncoderConfig:
    """Buckets that reach further, or less far."""
    position = config.layers[0].mixer.position
    assert isinstance(position, Disentangled)
    return _positions(config, max_distance=position.max_distance + by)


def turned_distances(config: EncoderConfig, state: State) -> EncoderConfig:
    """Key minus query where it is query minus key."""
    state["relative.table.weight"] = torch.cat((state["relative.table.weight"][:1], state["relative.table.weight"][1:].flip(0)))
    return config


def no_norm_of_the_table(config: EncoderConfig, state: State) -> EncoderConfig:
    del state["relative.norm.weight"], state["relative.norm.bias"]
    return _positions(config, norm=None)


MUTATIONS: tuple[tuple[str, Mutation], ...] = (
    ("modernbert-masked_lm", partial(theta, 160_000.0)),
    ("modernbert-masked_lm", partial(theta, 10_000.0)),
    ("neobert-masked_lm", partial(theta, 10_000.0)),
    ("modernbert-masked_lm", partial(window, 1)),
    ("modernbert-masked_lm", partial(window, -1)),
    ("modernbert-masked_lm", swapped_halves),
    ("neobert-masked_lm", swapped_halves),
    ("neobert-masked_lm", side_by_side),
    ("neobert-masked_lm", by_head),
    ("modernbert-masked_lm", first_norm),
    ("modernbert-masked_lm", late_globals),
    ("bert-masked_lm", other_gelu),
    ("bert-masked_lm-tanh-gelu", other_gelu),
    ("modernbert-masked_lm", other_gelu),
    ("roberta-masked_lm", no_offset),
    ("xlm-roberta-masked_lm", no_offset),
    ("bert-masked_lm", no_types),
    ("deberta-masked_lm", by_head),
    ("deberta-masked_lm", a_bias_of_keys),
    ("deberta-masked_lm", scaled_by_the_head_alone),
    ("deberta-masked_lm", turned_distances),
    ("deberta-v2-masked_lm", scaled_by_the_head_alone),
    ("deberta-v2-masked_lm", turned_distances),
    ("deberta-v2-masked_lm", no_norm_of_the_table),
    ("deberta-v2-masked_lm", partial(other_furthest, 5)),
    ("deberta-v2-masked_lm", partial(other_furthest, -5)),
)


def _name(value: object) -> str:
    inner = value.func if isinstance(value, partial) else value
    given = f"{value.args[0]:g}" if isinstance(value, partial) else ""
    return value if isinstance(value, str) else inner.__name__ + given  # type: ignore[attr-defined]


@pytest.mark.parametrize(("case", "mutation"), MUTATIONS, ids=_name)
def test_parity_notices(case: str, mutation: Mutation) -> None:
    model, batch, expected = outputs(_case(case))
    state = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    spec = replace(model.spec, encoder=mutation(model.spec.encoder, state))
    mutant = Model(model.family, spec)
    mutant.encoder.load_state_dict(state)
    mutant.heads.load_state_dict(model.heads.state_dict())
    with torch.no_grad():
        assert worst(run(mutant, batch), expected) > 10 * TOLERANCE


def floored(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Log buckets rounded down."""
    half = buckets // 2
    far = distance.abs().clamp(min=half)
    growth = torch.log(far / half) / torch.log(torch.tensor((max_distance - 1) / half)) * (half - 1)
    return torch.where(far == half, distance, (growth.floor().long() + half) * distance.sign())


def test_parity_notices_floored_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, expected = outputs(_case("deberta-v2-masked_lm"))
    monkeypatch.setattr(disentangled, "log_buckets", floored)
    with torch.no_grad():
        assert worst(run(model, batch), expected) > 10 * TOLERANCE


def test_parity_notices_the_papers_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equation 4 has the distance of the key from the query for the second term; the released weights do not."""
    model, batch, expected = outputs(_case("deberta-v2-masked_lm"))
    laid = disentangled.Disentangled._laid

    def turned(self: disentangled.Disentangled, table: Tensor, start: int, step: int, count: int) -> Tensor:
        return laid(self, table, -start, -1, count) if step == 1 else laid(self, table, start, step, count)

    monkeypatch.setattr(disentangled.Disentangled, "_laid", turned)
    with torch.no_grad():
        assert worst(run(model, batch), expected) > 10 * TOLERANCE


def test_parity_notices_a_convolution_in_each_layer() -> None:
    model, batch, expected = outputs(_case("deberta-v2-masked_lm-convolution"))
    encoder = model.encoder
    with torch.no_grad():
        x, ragged = encoder.embed(batch)
        first, context = x, encoder.context(ragged)
        for layer in encoder.stack:
            x = encoder.convolution(first, layer(x, context), ragged)  # type: ignore[misc]
    assert worst({"final": x}, {"final": expected["final"]}) > 10 * TOLERANCE


def test_the_unchanged_copy_is_within_tolerance() -> None:
    """What the mutants go through does no harm by itself."""
    model, batch, expected = outputs(_case("modernbert-masked_lm"))
    copy = Model(model.family, model.spec)
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert worst(run(copy, batch), expected) <= TOLERANCE


@pytest.mark.parametrize("case", ["bert-masked_lm", "modernbert-masked_lm", "neobert-masked_lm"])
def test_attention_is_far_from_uniform(case: str) -> None:
    """Else a wrong score could hide: without queries and keys the outputs are others."""
    model, batch, expected = outputs(_case(case))
    blind = Model(model.family, model.spec)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in state:
        if ".mixer.qkv." in name:
            state[name][: 2 * SIZE] = 0
    blind.load_state_dict(state)
    with torch.no_grad():
        assert worst(run(blind, batch), expected) > 0.1
