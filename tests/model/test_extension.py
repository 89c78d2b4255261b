"""Models made into others: as `transformers` computes them with the same change in their config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import references
from tests.builders import gap, random_ids
from tests.parity.test_parity import TOLERANCE, run, worst
from tests.references import Case
from tests.references.scaled import SCALED

import bothways
from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.errors import InputError
from bothways.families import deberta, llama
from bothways.families.family import Heads, Spec
from bothways.families.modernbert import modernbert
from bothways.layers.scaling import Linear, Yarn
from bothways.model.extension import bidirectional, ntk_theta, tiled, with_rotary
from bothways.model.model import Model
from bothways.ragged import Batch

YARN = Yarn(factor=4.0, original_length=64, beta_fast=8.0, beta_slow=0.5)
LONG = random_ids((400, 3))
_MODERN = {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": SCALED["yarn"]}


def published(case: Case, folder: Path) -> Model:
    """A model of a case as they write it, for at most 256 tokens."""
    return bothways.load(references.save(references.build(case), folder), strict=True)


def theirs(case: Case, model: Any) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return references.run(case, model, LONG, None)


def ours(model: Model) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return run(model, Batch.of(LONG))


@pytest.mark.parametrize(
    ("family", "changes", "asked"),
    [
        ("eurobert", {"rope_parameters": SCALED["yarn"]}, {"theta": 50.0, "scaling": YARN}),
        ("llama", {"rope_parameters": SCALED["linear"]}, {"theta": 50.0, "scaling": Linear(factor=3.0)}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 777.0}}, {"theta": 777.0}),
        ("modernbert", {"rope_parameters": _MODERN}, {"theta": 50.0, "scaling": YARN, "layers": "global"}),
    ],
    ids=str,
)
def test_longer_texts_as_transformers_reads_them(
    family: str, changes: dict[str, Any], asked: dict[str, Any], tmp_path: Path
) -> None:
    """The same weights, another config: theirs with the change, ours extended; and ours saved, read by them."""
    model = published(Case(family, "bare"), tmp_path / "theirs")
    with pytest.raises(InputError, match="a sequence has 400 tokens, the encoder takes at most 256"):
        ours(model)
    longer = with_rotary(model, max_length=512, **asked)
    case = Case(family, "bare", {**changes, "max_position_embeddings": 512})
    expected = theirs(case, references.build(case))
    assert worst(ours(longer), expected) <= TOLERANCE
    # it is no accident: without the change it is far off
    assert worst(ours(with_rotary(model, max_length=512)), expected) > 100 * TOLERANCE
    saved = longer.save(tmp_path / "ours")
    assert worst(ours(bothways.load(saved, strict=True)), expected) <= TOLERANCE
    assert worst(theirs(case, references.reload(case, saved)), expected) <= TOLERANCE


def test_the_weights_are_the_very_same(tmp_path: Path) -> None:
    model = published(Case("eurobert", "masked_lm"), tmp_path / "theirs")
    model.encoder.embedding.tokens.weight.requires_grad_(False)
    other = with_rotary(model, scaling=YARN)
    assert all(one is two for one, two in zip(model.parameters(), other.parameters(), strict=True))
    assert not other.encoder.embedding.tokens.weight.requires_grad
    assert model.spec.encoder.layer(0).mixer.position == with_rotary(other, scaling="none").spec.encoder.layer(0).mixer.position


def test_limits_that_are_stated_move_along(tmp_path: Path) -> None:
    model = published(Case("llama", "bare"), tmp_path / "theirs")
    model.settings = type(model.settings)(max_seq_length=100)
    assert with_rotary(model, max_length=1024).max_seq_length == 1024
    assert with_rotary(model, theta=3.0).max_seq_length == 100


def test_what_has_no_rotary_positions(tmp_path: Path) -> None:
    model = published(Case("bert", "bare"), tmp_path / "bert")
    with pytest.raises(InputError, match="has no rotary positions in all layers"):
        with_rotary(model, theta=3.0)
    with pytest.raises(InputError, match="has no rotary positions in local layers"):
        with_rotary(published(Case("llama", "bare"), tmp_path / "llama"), theta=3.0, layers="local")


@pytest.mark.parametrize("length", [256, 300, 1000])
def test_a_base_for_longer_texts_is_that_of_dynamic_scaling(length: int) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from bothways.ops.rotary import rotary_frequencies

    parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    config = LlamaConfig(hidden_size=64, num_attention_heads=2, max_position_embeddings=256, rope_parameters=parameters)
    expected, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, seq_len=length)
    torch.testing.assert_close(rotary_frequencies(32, ntk_theta(1e4, 2.0 * length / 256 - 1, 32)), expected)


@pytest.mark.parametrize(
    ("family", "changes"), [("llama", {}), ("qwen2", {}), ("qwen3", {}), ("mistral", {"sliding_window": None})]
)
def test_a_decoder_becomes_an_encoder(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """All tokens see all; theirs with `is_causal: false` is the same, and reads what is saved."""
    model = published(Case(family, "causal_lm", {**changes, "max_position_embeddings": 512}), tmp_path / "theirs")
    encoder = bidirectional(model)
    case = Case(family, "causal_lm", {**changes, "is_causal": False, "max_position_embeddings": 512})
    expected = theirs(case, references.build(case))
    assert worst(ours(encoder), expected) <= TOLERANCE
    assert worst(ours(model), expected) > 100 * TOLERANCE
    saved = encoder.save(tmp_path / "ours")
    assert not bothways.load(saved, strict=True).spec.encoder.layer(0).mixer.causal
    assert worst(theirs(case, references.reload(case, saved)), expected) <= TOLERANCE


def test_which_tokens_see_which(tmp_path: Path) -> None:
    """Published: changing the last token changes no other. Both ways: it changes the first."""
    model = published(Case("llama", "bare"), tmp_path / "theirs")
    here, there = random_ids((9,))[0], random_ids((9,))[0].copy()
    there[-1] = 99 if there[-1] != 99 else 98
    for one, reaches in ((model, False), (bidirectional(model), True)):
        with torch.no_grad():
            first, second = (one.encoder(Batch.of([ids])).hidden for ids in (here, there))
        assert torch.equal(first[:-1], second[:-1]) != reaches
        assert not torch.equal(first[-1], second[-1])
        assert (gap(second[0], first[0]) > 1e-3) == reaches


def test_eurobert_s_last_token_reaches_the_first(tmp_path: Path) -> None:
    model = published(Case("eurobert", "bare"), tmp_path / "theirs")
    here = random_ids((9,))[0]
    there = here.copy()
    there[-1] = 99 if there[-1] != 99 else 98
    with torch.no_grad():
        assert gap(model.encoder(Batch.of([there])).hidden[0], model.encoder(Batch.of([here])).hidden[0]) > 1e-3


def test_a_window_is_as_wide_in_both_directions(tmp_path: Path) -> None:
    model = published(Case("mistral", "bare"), tmp_path / "theirs")
    encoder = bidirectional(model)
    assert encoder.spec.encoder.layer(0).mixer.window == model.spec.encoder.layer(0).mixer.window == 3
    case = Case("mistral", "bare", {"sliding_window": 3, "is_causal": False, "max_position_embeddings": 512})
    longer = with_rotary(encoder, max_length=512)
    assert worst(ours(longer), theirs(case, references.build(case))) <= TOLERANCE


def test_a_tiled_model_is_one_of_its_family(tmp_path: Path) -> None:
    model = published(Case("modernbert", "masked_lm"), tmp_path / "theirs")
    config = modernbert(101, 40, 7, 5, 28, max_length=512, window=4)
    larger = tiled(model, config)
    assert all(parameter.requires_grad for parameter in larger.parameters())
    case = Case("modernbert", "masked_lm")
    # in float64: the copies in tiled features add up, so that attention is sharp and rounding grows
    expected = theirs(case, references.reload(case, larger.save(tmp_path / "ours")).double())
    assert worst(ours(larger.double()), expected) <= TOLERANCE


def test_the_positions_of_a_mask_decoder_are_not_tiled() -> None:
    encoder = deberta.deberta(101, 24, 2, 3, 20, 32)
    spec = Spec(encoder=encoder, heads=Heads(mask_decoder=MaskDecoderHead()))
    model = Model.create(deberta.FAMILY, spec)
    with pytest.raises(InputError, match="tiling keeps the positions: those of mask_decoder are 32, not max_length 48"):
        tiled(model, replace(encoder, max_length=48))


def test_a_fresh_llama_is_causal() -> None:
    with torch.device("meta"):
        model = Model(llama.FAMILY, Spec(encoder=llama.SIZES["llama-3.2-1b"]))
    assert model.spec.encoder.layer(0).mixer.causal
    assert not bidirectional(model).spec.encoder.layer(0).mixer.causal
