"""Parity would notice a wrong model: each classic mistake, made on purpose, is far outside the tolerance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from tests.builders import HEADS, LAYERS, SIZE, WINDOW, gap
from tests.parity.test_parity import TOLERANCE, outputs, run, worst
from tests.references import CASES
from torch import Tensor

from bothways.encoder.config import EncoderConfig, Layer
from bothways.layers.attention import Attention
from bothways.layers.heads import Classifier, ClassifierHead
from bothways.layers.position import Disentangled, Learned, Rotary
from bothways.layers.scaling import Yarn
from bothways.model.model import Model
from bothways.ops import disentangled, global_attention
from bothways.ops.attention import Score

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
        return replace(mixer, position=Rotary(theta=2 * old)) if mixer.position == Rotary(theta=old) else mixer

    return _mixers(config, change)


def window(by: int, config: EncoderConfig, state: State) -> EncoderConfig:
    return _mixers(config, lambda mixer: replace(mixer, window=WINDOW + by) if mixer.window else mixer)


def width(config: EncoderConfig, state: State) -> EncoderConfig:
    """The full width of a window taken for the reach to each side."""
    return _mixers(config, lambda mixer: replace(mixer, window=2 * WINDOW))


def global_keys_for_all(config: EncoderConfig, state: State) -> EncoderConfig:
    """The keys and values of global queries, in the rows of local ones as well."""
    for i in range(LAYERS):
        for part in ("weight", "bias"):
            name = f"layers.{i}.mixer.{{}}.{part}"
            state[name.format("qkv")][SIZE:] = state[name.format("everywhere.key_value")]
    return config


def local_queries(config: EncoderConfig, state: State) -> EncoderConfig:
    """Global queries by the projection of local ones."""
    for i in range(LAYERS):
        for part in ("weight", "bias"):
            name = f"layers.{i}.mixer.{{}}.{part}"
            state[name.format("everywhere.query")] = state[name.format("qkv")][:SIZE]
    return config


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


def _unrolled(modules: list[int], config: EncoderConfig, state: State) -> EncoderConfig:
    """Shared layers as copies: at each depth one of the module of this number."""
    layers = {name: state.pop(name) for name in list(state) if name.startswith("layers.")}
    for depth, module in enumerate(modules):
        own = {name: tensor for name, tensor in layers.items() if name.startswith(f"layers.{module}.")}
        state |= {name.replace(f".{module}.", f".{depth}.", 1): tensor.clone() for name, tensor in own.items()}
    return replace(config, shared=None)


def group_by_modulo(config: EncoderConfig, state: State) -> EncoderConfig:
    """Groups that take turns, where each is a stretch of the depth."""
    assert config.shared
    groups, inner = config.shared.groups, config.shared.inner
    return _unrolled([i // inner % groups * inner + i % inner for i in range(config.num_layers)], config, state)


def inner_layers_apart(config: EncoderConfig, state: State) -> EncoderConfig:
    """The inner layers of a group in the other order."""
    return _unrolled([module ^ 1 for module in config.depths], config, state)


def no_projection_bias(config: EncoderConfig, state: State) -> EncoderConfig:
    state["embedding.project.bias"].zero_()
    return config


def other_buckets(config: EncoderConfig, state: State) -> EncoderConfig:
    """The same number of them, up to twice the distance."""
    return _mixers(config, lambda mixer: replace(mixer, position=replace(mixer.position, max_distance=256)))


def other_direction(config: EncoderConfig, state: State) -> EncoderConfig:
    """What lies ahead read as what lies behind."""
    table = state["relative.weight"]
    state["relative.weight"] = torch.cat((table[:1], table[17:32], table[16:17], table[1:16], table[32:]))
    return config


def first_token_like_others(config: EncoderConfig, state: State) -> EncoderConfig:
    state["relative.weight"] = state["relative.weight"][:32]
    return _mixers(config, lambda mixer: replace(mixer, position=replace(mixer.position, first_apart=False)))


def no_distances(config: EncoderConfig, state: State) -> EncoderConfig:
    return _mixers(config, lambda mixer: replace(mixer, position=None))


def other_sight(config: EncoderConfig, state: State) -> EncoderConfig:
    """Causal where it is not, and the other way round."""
    return _mixers(config, lambda mixer: replace(mixer, causal=not mixer.causal))


def future_for_past(config: EncoderConfig, state: State) -> EncoderConfig:
    """What lies after a token weighed as if it lay before, and the other way round."""
    for name in [name for name in state if ".past." in name]:
        other = name.replace(".past.", ".future.")
        state[name], state[other] = state[other], state[name]
    return config


def slopes_backwards(config: EncoderConfig, state: State) -> EncoderConfig:
    """The same heads in another order, so that each has another's slope."""
    for i in range(LAYERS):
        for part in ("weight", "bias"):
            rows = state[f"layers.{i}.mixer.qkv.{part}"].unflatten(0, (3, HEADS, -1))
            state[f"layers.{i}.mixer.qkv.{part}"] = rows.flip(1).flatten(0, 2)
        columns = state[f"layers.{i}.mixer.out.weight"].unflatten(1, (HEADS, -1))
        state[f"layers.{i}.mixer.out.weight"] = columns.flip(1).flatten(1)
    return config


def own_length(config: EncoderConfig, state: State) -> EncoderConfig:
    """Texts read at their own length, by a mixer that was trained at the full one."""
    return replace(config, filler=None)


def other_filler(config: EncoderConfig, state: State) -> EncoderConfig:
    return replace(config, filler=11)


def centred(config: EncoderConfig, state: State) -> EncoderConfig:
    """A short convolution that sees a token's neighbours."""
    return replace(config, layers=tuple(replace(x, mixer=replace(x.mixer, short="centred")) for x in config.layers))


def other_gate(config: EncoderConfig, state: State) -> EncoderConfig:
    """x1 where x2 should be."""
    for name in [name for name in state if ".mixer.project." in name or ".mixer.short." in name]:
        one, two, three = state[name].chunk(3)
        state[name] = torch.cat((two, one, three))
    return config


def residual_around_the_mixer(config: EncoderConfig, state: State) -> EncoderConfig:
    for i in range(LAYERS):
        state |= {f"layers.{i}.mixer_norm.weight": torch.ones(SIZE), f"layers.{i}.mixer_norm.bias": torch.zeros(SIZE)}
    return replace(config, layers=tuple(replace(layer, mixer_residual=True) for layer in config.layers))


def unscaled(config: EncoderConfig, state: State) -> EncoderConfig:
    """Rotary frequencies as without the scaling."""
    return _rotary(config, lambda position: replace(position, scaling=None))


def no_attention_factor(config: EncoderConfig, state: State) -> EncoderConfig:
    """YaRN's frequencies without its factor of cosines and sines."""

    def change(position: Rotary) -> Rotary:
        assert isinstance(position.scaling, Yarn)
        return replace(position, scaling=replace(position.scaling, attention_factor=1.0))

    return _rotary(config, change)


def other_truncation(config: EncoderConfig, state: State) -> EncoderConfig:
    """YaRN's ramp from and to whole features where it is not, and the other way round."""

    def change(position: Rotary) -> Rotary:
        assert isinstance(position.scaling, Yarn)
        return replace(position, scaling=replace(position.scaling, truncate=not position.scaling.truncate))

    return _rotary(config, change)


def _rotary(config: EncoderConfig, change: Callable[[Rotary], Rotary]) -> EncoderConfig:
    return _mixers(config, lambda mixer: replace(mixer, position=change(mixer.position)))  # type: ignore[arg-type]


def dealt_groups(config: EncoderConfig, state: State) -> EncoderConfig:
    """Of four query heads on two key heads, the first and third share one, where the first and second should."""
    for i in range(LAYERS):
        qkv, out = f"layers.{i}.mixer.qkv.weight", f"layers.{i}.mixer.out.weight"
        q, rest = state[qkv].split((SIZE, SIZE))
        state[qkv] = torch.cat((q.view(2, 2, -1, SIZE).transpose(0, 1).reshape(SIZE, SIZE), rest))
        state[out] = state[out].view(SIZE, 2, 2, -1).transpose(1, 2).reshape(SIZE, SIZE)
    return config


def unnormed(config: EncoderConfig, state: State) -> EncoderConfig:
    """Queries and keys as they are projected."""
    return _mixers(config, lambda mixer: replace(mixer, qk_norm=None))


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
    ("albert-masked_lm-three-groups-relu", group_by_modulo),
    ("albert-pretraining-groups", group_by_modulo),
    ("albert-pretraining-groups", inner_layers_apart),
    ("albert-masked_lm", no_projection_bias),
    ("electra-masked_lm", no_projection_bias),
    ("albert-masked_lm", no_types),
    ("electra-replaced_token", no_types),
    ("albert-masked_lm", other_gelu),
    ("distilbert-masked_lm", other_gelu),
    ("electra-replaced_token", other_gelu),
    ("mpnet-masked_lm", other_buckets),
    ("mpnet-masked_lm", other_direction),
    ("mpnet-masked_lm", no_offset),
    ("ernie_gram-masked_lm", other_buckets),
    ("ernie_gram-masked_lm", other_direction),
    ("ernie_gram-masked_lm", first_token_like_others),
    ("mosaicbert-masked_lm", swapped_halves),
    ("mosaicbert-masked_lm", no_distances),
    ("mosaicbert-masked_lm", other_sight),
    ("mosaicbert-masked_lm", slopes_backwards),
    ("mosaicbert-masked_lm", other_gelu),
    ("mosaicbert-masked_lm", no_types),
    ("nomic_bert-masked_lm", partial(theta, 1_000.0)),
    ("nomic_bert-masked_lm", swapped_halves),
    ("nomic_bert-masked_lm", no_types),
    ("longformer-masked_lm", no_offset),
    ("longformer-masked_lm", partial(window, 1)),
    ("longformer-masked_lm", partial(window, -1)),
    ("longformer-masked_lm-globals", width),
    ("longformer-masked_lm-globals", global_keys_for_all),
    ("longformer-masked_lm-globals", local_queries),
    ("longformer-classifier", local_queries),
    *(("m2_bert-masked_lm", mutation) for mutation in (own_length, other_filler, centred, future_for_past, other_gate)),
    *(("m2_bert-masked_lm", mutation) for mutation in (residual_around_the_mixer, swapped_halves, other_gelu, no_types)),
    ("modernbert-masked_lm-equal-thetas", partial(theta, 160_000.0)),
    ("modernbert-bare-scaled", unscaled),
    ("eurobert-masked_lm", partial(theta, 10_000.0)),
    ("eurobert-masked_lm", other_sight),
    ("eurobert-masked_lm", swapped_halves),
    ("eurobert-masked_lm-groups", dealt_groups),
    ("eurobert-masked_lm-yarn", no_attention_factor),
    ("llama-causal_lm", other_sight),
    ("llama-causal_lm-both-ways", other_sight),
    ("llama-bare-linear", unscaled),
    ("llama-bare-llama3", unscaled),
    ("llama-bare-yarn", unscaled),
    ("llama-bare-yarn-defaults", no_attention_factor),
    ("llama-bare-yarn-mscale", no_attention_factor),
    ("llama-bare-yarn-factor", no_attention_factor),
    ("llama-bare-yarn-mscale", other_truncation),
    ("llama-bare-yarn", other_truncation),
    # a causal window of 4 is 3 tokens back
    ("mistral-causal_lm", partial(window, 0)),
    ("mistral-causal_lm", partial(window, -2)),
    ("mistral-causal_lm", other_sight),
    ("camembert-masked_lm", no_offset),
    ("qwen3-causal_lm", unnormed),
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
    # what a mutation takes out of the network is left in the state
    mutant.encoder.load_state_dict({name: state[name] for name in mutant.encoder.state_dict()})
    mutant.heads.load_state_dict(model.heads.state_dict())
    with torch.no_grad():
        assert worst(run(mutant, batch), expected) > 10 * TOLERANCE


# a head, and the activation that another family's head of that kind would have
HEADS_MISTAKEN = (
    ("distilbert-classifier", "classifier", "tanh"),
    ("distilbert-classifier-tanh-gelu", "classifier", "gelu_tanh"),
    ("electra-classifier", "classifier", "tanh"),
    ("electra-classifier-relu", "classifier", "relu"),
    ("electra-masked_lm-relu", "masked_lm", "relu"),
    ("electra-replaced_token-relu", "replaced_token", "gelu"),
    ("albert-pretraining", "sentence_order", "gelu"),
    ("albert-masked_lm", "masked_lm", "gelu"),
)


@pytest.mark.parametrize(("case", "head", "activation"), HEADS_MISTAKEN)
def test_parity_notices_a_mistaken_head(case: str, head: str, activation: Any) -> None:
    model, batch, expected = outputs(_case(case))
    config = getattr(model.spec.heads, head)
    wrong = replace(config, transform=replace(config.transform, activation=activation))
    mutant = Model(model.family, replace(model.spec, heads=replace(model.spec.heads, **{head: wrong})))
    mutant.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert worst(run(mutant, batch), expected) > 10 * TOLERANCE


def test_copies_of_shared_layers_are_within_tolerance() -> None:
    """The mutants that unroll them are wrong in the order alone."""
    model, batch, expected = outputs(_case("albert-pretraining-groups"))
    state = dict(model.encoder.state_dict())
    mutant = Model(
        model.family, replace(model.spec, encoder=_unrolled(list(model.spec.encoder.depths), model.spec.encoder, state))
    )
    mutant.encoder.load_state_dict(state)
    mutant.heads.load_state_dict(model.heads.state_dict())
    with torch.no_grad():
        assert worst(run(mutant, batch), expected) <= TOLERANCE


@pytest.mark.parametrize("pooling", ["late", "mean", "cls"])
@pytest.mark.parametrize("case", ["late", "mean", "bos"])
def test_parity_notices_another_pooling(case: str, pooling: Any) -> None:
    model, batch, expected = outputs(_case(f"eurobert-classifier-{case}"))
    head = model.heads["classifier"]
    assert isinstance(head.config, ClassifierHead)
    other = Classifier(replace(head.config, pooling=pooling), SIZE)
    other.load_state_dict(head.state_dict())
    with torch.no_grad():
        encoded = model.encoder(batch)
        difference = gap(other(encoded.hidden, encoded.ragged), expected["classifier"])
    same = head.config.pooling == pooling
    assert difference <= TOLERANCE if same else difference > 10 * TOLERANCE


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


def test_parity_notices_a_key_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Global keys left in the window, where they are neighbours: in one softmax, but twice."""
    model, batch, expected = outputs(_case("longformer-masked_lm-globals"))
    right = global_attention._local

    def doubled(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, columns: Tensor, score: Score) -> Tensor:
        return right(q, k, v, torch.zeros_like(mask), columns, score)

    monkeypatch.setattr(global_attention, "_local", doubled)
    with torch.no_grad():
        assert worst(run(model, batch), expected) > 10 * TOLERANCE


def test_parity_notices_two_softmaxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window and the global keys each with a softmax of its own, and the two added up."""
    model, batch, expected = outputs(_case("longformer-masked_lm-globals"))
    right = global_attention._sdpa

    def apart(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, score: Score) -> Tensor:
        if mask is None:
            return right(q, k, v, mask, score)
        first = mask.all(dim=2, keepdim=True)  # the columns of global keys: all queries see them
        parts = [right(q, k, v, part, score).nan_to_num() for part in (mask & first, mask & ~first)]
        return parts[0] + parts[1]

    monkeypatch.setattr(global_attention, "_sdpa", apart)
    with torch.no_grad():
        assert worst(run(model, batch), expected) > 10 * TOLERANCE


FAMILIES = ("bert", "modernbert", "neobert", "albert", "distilbert", "electra", "eurobert", "deberta-v2", "mpnet", "longformer")


@pytest.mark.parametrize("case", [f"{family}-masked_lm" for family in FAMILIES])
def test_attention_is_far_from_uniform(case: str) -> None:
    """Else a wrong score could hide: without queries and keys the outputs are others."""
    model, batch, expected = outputs(_case(case))
    blind = Model(model.family, model.spec)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    heads, kv_heads, size = model.spec.encoder.layer(0).mixer.sizes(SIZE)
    for name in state:
        if ".mixer.qkv." in name:
            state[name][: (heads + kv_heads) * size] = 0
    blind.load_state_dict(state)
    with torch.no_grad():
        assert worst(run(blind, batch), expected) > 0.1
