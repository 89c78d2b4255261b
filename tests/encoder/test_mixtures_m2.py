"""Monarch mixers in the encoder: filled up to the full length as published, at their own lengths, and mixed with attention."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydantic
import pytest
import torch
from hypothesis import given, settings
from tests.builders import CONFIGS, INNER, LAYERS, SIZE, VOCAB, entering, gap, lengths_lists, random_batch, random_ids, randomise

from bothways.encoder.config import EncoderConfig, Layer
from bothways.encoder.encoder import Encoder
from bothways.encoder.initialisation import initialise
from bothways.errors import InputError
from bothways.families import FAMILIES
from bothways.families.family import Spec
from bothways.families.m2bert import m2bert
from bothways.layers.attention import Attention
from bothways.layers.mlp import Gated
from bothways.layers.monarch import Monarch
from bothways.layers.norm import LayerNorm
from bothways.model.batching import run
from bothways.model.folder import check_expressed
from bothways.model.model import Model
from bothways.objectives.masked_lm import MaskedInputs
from bothways.ragged import Batch, Ragged

LENGTH, FILLER = 16, 3
FILLED = m2bert(
    vocab_size=VOCAB, hidden_size=SIZE, num_layers=LAYERS, intermediate_size=INNER, max_length=LENGTH, width=16, filler=FILLER
)
M2 = FILLED.layers[0]
# an attention layer, a Monarch layer with residual and norm (and a short convolution that looks both ways), M2-BERT's own
MIXTURE = EncoderConfig(
    vocab_size=VOCAB,
    hidden_size=SIZE,
    num_layers=6,
    max_length=LENGTH,
    embedding=FILLED.embedding,
    layers=(
        Layer(mixer=Attention(heads=3), mlp=Gated(size=INNER), norm=LayerNorm(), order="pre"),
        Layer(mixer=Monarch(length=20, width=16, short="centred"), mlp=M2.mlp, norm=LayerNorm(), order="post"),
        M2,
    ),
    final_norm=LayerNorm(),
)


def made(config: EncoderConfig) -> Encoder:
    encoder = Encoder(config)
    randomise(encoder)
    return encoder.eval()


@settings(max_examples=10)
@given(lengths=lengths_lists)
def test_filled_or_mixed_packed_is_alone(lengths: list[int]) -> None:
    sequences = random_ids(lengths)
    for config in (FILLED, MIXTURE):
        encoder = made(config)
        with torch.no_grad():
            for together, one in zip(encoder(Batch.of(sequences)).split(), sequences, strict=True):
                assert gap(together, encoder(Batch.of([one])).hidden) <= 1e-5


def test_filling_up_is_writing_the_filler_behind_the_text() -> None:
    """What is returned is the given tokens' part alone, of every layer; empty slots stay empty."""
    encoder, plain = made(FILLED), made(replace(FILLED, filler=None))
    sequences = random_ids([5, 0, 16])
    types = [np.arange(5) % 2, np.zeros(0, np.int64), np.ones(16, np.int64)]
    given = encoder(Batch.of(sequences, types), keep=True)
    written = [np.pad(one, (0, LENGTH - len(one)), constant_values=FILLER) for one in (sequences[0], sequences[2])]
    full = plain(Batch.of(written, [np.pad(types[0], (0, 11)), types[2]]), keep=True)
    assert given.ragged.lengths == (5, 0, 16)
    for ours, expected in zip((given.hidden, *given.layers), (full.hidden, *full.layers), strict=True):
        assert torch.equal(ours, torch.cat((expected[:5], expected[16:])))


def test_at_its_own_length_it_is_another_network() -> None:
    batch = random_batch([5, 9])
    assert gap(made(replace(FILLED, filler=None))(batch).hidden, made(FILLED)(batch).hidden) > 0.01


def test_the_filler_takes_part_and_learns_nothing() -> None:
    encoder, batch = made(FILLED), random_batch([5])
    encoder(batch).hidden.sum().backward()
    gradient = encoder.embedding.tokens.weight.grad
    assert gradient is not None
    assert not gradient[FILLER].any()
    with torch.no_grad():
        before = encoder(batch).hidden
        encoder.embedding.tokens.weight[FILLER] += torch.randn(SIZE)
        assert gap(encoder(batch).hidden, before) > 1e-3


def test_the_costs_of_the_full_length_are_counted() -> None:
    """By the counter of operations, and by the budget of a batch."""
    encoder = made(FILLED)
    assert encoder.flops(Ragged.of([5, 0])) == encoder.flops(Ragged.of([16]))
    seen: list[int] = []
    run(encoder, random_ids([2] * 6), lambda encoded, chosen: [encoded.hidden[:1] for _ in chosen], budget=48,
        progress=lambda sequences, tokens: seen.append(sequences))  # fmt: skip
    assert seen == [3, 3]


@pytest.mark.parametrize("config", [FILLED, MIXTURE], ids=["filled", "mixture"])
def test_no_gradient_crosses_documents(config: EncoderConfig) -> None:
    encoder = made(config)
    with entering(encoder) as vectors:
        encoded = encoder(random_batch([5, 9, 5]))
    (gradient,) = torch.autograd.grad((encoded.split()[1] * torch.randn(9, SIZE)).sum(), vectors)
    starts = Ragged.of([LENGTH] * 3 if config.filler is not None else [5, 9, 5]).offsets
    assert gradient[starts[1] : starts[2]].any()
    assert not gradient[: starts[1]].any()
    assert not gradient[starts[2] :].any()


@pytest.mark.parametrize("config", [FILLED, MIXTURE, CONFIGS["m2_bert"]], ids=["filled", "mixture", "own length"])
def test_it_learns(config: EncoderConfig) -> None:
    """To say which token stood before: within some steps the loss falls by half, from fresh weights."""
    encoder = Encoder(replace(config, num_layers=3, initialisation=replace(config.initialisation, std=0.1)))
    initialise(encoder, encoder.config.initialisation, 3, seed=0)
    batch = random_batch([9, 14, 12])
    inputs = MaskedInputs(batch, torch.arange(1, 9), batch.ids[:8], hidden=0)
    head = torch.nn.Linear(SIZE, VOCAB)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-2)
    losses = []
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(head(encoder(inputs.batch).hidden[inputs.rows]), inputs.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in encoder.parameters())
    assert losses[-1] < losses[0] / 2


def test_fresh_weights() -> None:
    """As published: uniform blocks and taps, a standard normal skip, a filler of zeros; a function of the seed."""
    one, again, other = (Encoder(m2bert(vocab_size=50, hidden_size=64, num_layers=1, max_length=32)) for _ in range(3))
    for encoder, seed in ((one, 0), (again, 0), (other, 1)):
        initialise(encoder, encoder.config.initialisation, 1, seed)
    state = one.state_dict()
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in state.items())
    assert not torch.equal(other.state_dict()["layers.0.mixer.long.skip"], state["layers.0.mixer.long.skip"])
    bounds = {"mlp.up.weight": 0.25, "mlp.down.weight": 768**-0.5, "mlp.down.bias": 0.125, "mixer.short.weight": 3**-0.5}
    for name, bound in bounds.items():
        assert 0.9 * bound < state[f"layers.0.{name}"].abs().max() <= bound
    assert 0.7 < state["layers.0.mixer.long.skip"].std() < 1.3
    assert state["layers.0.mixer.project.weight"].std().item() == pytest.approx(0.0176, rel=0.05)
    assert not state["layers.0.mixer.project.bias"].any()
    assert not state["embedding.tokens.weight"][0].any()


def test_other_families_have_no_words_for_it() -> None:
    for family in FAMILIES:
        if family.name != "m2_bert":
            with torch.device("meta"):
                model = Model(family, Spec(encoder=FILLED))
            with pytest.raises(
                InputError, match=f"'{family.name}' cannot express this encoder's layers.0.mixer of the type 'monarch'"
            ):
                check_expressed(model)


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({"mixer": Attention(heads=3)}, "layers.0.mixer of the type 'attention'"),
        ({"mlp": Gated(size=20)}, "layers.0.mlp of the type 'gated'"),
        ({"mixer": Monarch(length=LENGTH, width=16, short="centred")}, "layers.0.mixer.short"),
        ({"mixer_residual": True}, "layers.0.mixer_residual"),
    ],
)
def test_what_m2_bert_has_no_words_for(changes: dict[str, object], lacking: str) -> None:
    with torch.device("meta"):
        encoder = replace(FILLED, layers=(replace(FILLED.layers[0], **changes),), filler=None)
        model = Model(next(one for one in FAMILIES if one.name == "m2_bert"), Spec(encoder=encoder))
    with pytest.raises(InputError, match=f"'m2_bert' cannot express this encoder's {lacking}"):
        check_expressed(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": 17}, "layers.0.mixer.length: 16 positions are fewer than max_length 17"),
        ({"hidden_size": 22}, "layers.0.mlp.blocks: 4 does not divide hidden_size 22 and size 20"),
        ({"filler": VOCAB}, "filler: 101 is no token"),
        ({"layers": MIXTURE.layers}, "filler: 3 is no token, or a layer has attention"),
    ],
)
def test_refusals(changes: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        replace(FILLED, **changes)
