"""NomicBERT's released spelling, which the classes of `transformers` no longer read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import references
from tests.parity.test_parity import TOLERANCE, run, texts, worst
from tests.references import Case

import bothways
from bothways.errors import InputError
from bothways.families import nomic
from bothways.ragged import Batch

# the released code rounds its MLP up to a multiple of 256
CASE = Case("nomic_bert", "masked_lm", {"intermediate_size": 256, "vocab_size": 128, "rope_parameters": {"rope_theta": 77.0}})
RELEASED: dict[str, Any] = {
    "model_type": "nomic_bert", "activation_function": "swiglu", "attn_pdrop": 0.0, "causal": False, "dense_seq_output": True,
    "embd_pdrop": 0.1, "fused_bias_fc": True, "fused_dropout_add_ln": True, "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-12, "max_trained_positions": 2048, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "n_embd": 24,
    "n_head": 3, "n_inner": 200, "n_layer": 5, "n_positions": 8192, "pad_vocab_size_multiple": 64, "parallel_block": False,
    "parallel_block_tied_norm": False, "prenorm": False, "qkv_proj_bias": False, "reorder_and_upcast_attn": False,
    "resid_pdrop": 0.1, "rotary_emb_base": 77, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None, "rotary_scaling_factor": None, "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True, "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
    "summary_type": "cls_index", "summary_use_proj": True, "tie_word_embeddings": True, "type_vocab_size": 2, "use_cache": True,
    "use_flash_attn": True, "use_rms_norm": False, "use_xentropy": True, "vocab_size": 101,
}  # fmt: skip


def released(tmp_path: Path, **changes: Any) -> tuple[Any, Path]:
    """A model of theirs whose head's biases are zero, and its folder as the released code would write it, without them."""
    theirs: Any = references.build(CASE)
    with torch.no_grad():
        theirs.cls.predictions.bias.zero_()
        theirs.cls.predictions.transform.dense.bias.zero_()
    folder = references.save(theirs, tmp_path / "theirs")
    weights = load_file(folder / "model.safetensors")
    del weights["cls.predictions.bias"], weights["cls.predictions.transform.dense.bias"]
    renamed = {name.replace("nomic_bert.", "bert."): tensor for name, tensor in weights.items()}
    save_file(renamed, folder / "model.safetensors")
    config = {key: value for key, value in {**RELEASED, **changes}.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(config))
    return theirs, folder


def test_the_released_spelling(tmp_path: Path) -> None:
    theirs, folder = released(tmp_path)
    model = bothways.load(folder, strict=True)
    assert (model.spec.encoder.max_length, model.spec.encoder.vocab_size, model.spec.encoder.embedding.dropout) == (
        8192,
        128,
        0.1,
    )
    sequences, types = texts(CASE)
    with torch.no_grad():
        expected = references.run(CASE, theirs, sequences, types)
        assert worst(run(model, Batch.of(sequences, types)), expected) <= TOLERANCE
        again = bothways.load(model.save(tmp_path / "ours"), strict=True)
        assert again.spec == model.spec
        assert worst(run(again, Batch.of(sequences, types)), expected) <= TOLERANCE


def test_a_released_head_written_fresh_keeps_its_form(tmp_path: Path) -> None:
    """Without the config it came from to lean on."""
    model = bothways.load(released(tmp_path)[1])
    model.published = {}
    assert bothways.load(model.save(tmp_path / "ours"), strict=True).spec == model.spec


@pytest.mark.parametrize("key", ["rotary_emb_fraction", "qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"])
def test_what_left_out_would_mean_something_else(key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no '{key}', without which"):
        bothways.load(released(tmp_path, **{key: "absent"})[1])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rotary_emb_fraction", 0.5), ("qkv_proj_bias", True), ("mlp_fc1_bias", True), ("prenorm", True), ("causal", True),
        ("parallel_block", True), ("use_rms_norm", True), ("rotary_emb_interleaved", True), ("rotary_emb_scale_base", 512),
        ("activation_function", "glu"), ("num_experts", 8), ("rope_parameters", {"rope_type": "dynamic"}),
    ],
)  # fmt: skip
def test_what_is_refused(key: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{'rope_type' if key == 'rope_parameters' else key}=.* is not supported"):
        bothways.load(released(tmp_path, **{key: value})[1])


def test_scaled_angles_are_exact_up_to_the_trained_length(tmp_path: Path) -> None:
    model = bothways.load(released(tmp_path, rotary_scaling_factor=2.0)[1])
    assert model.spec.encoder.max_length == 2048


def test_the_published_defaults() -> None:
    layer = nomic.SIZES["2048"].layer(0)
    assert layer.mixer.position == nomic.Rotary(theta=1000.0)
    assert (layer.mlp.type, layer.mlp.activation, layer.mlp.bias, layer.mixer.bias, layer.order) == (
        "gated",
        "silu",
        False,
        False,
        "post",
    )
