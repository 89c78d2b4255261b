"""Folders go both ways: theirs to ours to theirs, and fresh models of ours to theirs (X2)."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import references
from tests.parity.test_parity import TOLERANCE, batch_of, run, texts, worst
from tests.references import CASES, Case

import bothways
from bothways.errors import InputError
from bothways.families import modernbert
from bothways.families.family import Heads, Spec
from bothways.model.model import Model


def case_of(name: str) -> Case:
    return next(case for case in CASES if str(case) == name)


def written(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_equal_folders(ours: Path, theirs: Path) -> None:
    """The same keys and the same bits."""
    found, expected = written(ours), written(theirs)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def shape(model: Model) -> tuple[object, ...]:
    """All that decides the numbers; names of classes are written even where nobody gave any."""
    return model.spec.encoder, model.spec.heads, model.spec.pad_id


def numbers(model: Model, case: Case) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return run(model, batch_of(case))


def their_numbers(case: Case, folder: Path) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return references.run(case, references.reload(case, folder), *texts(case))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_theirs_to_ours_to_theirs(case: Case, tmp_path: Path) -> None:
    theirs = references.save(references.build(case), tmp_path / "theirs")
    model = bothways.load(theirs, strict=True)
    ours = model.save(tmp_path / "ours")
    assert_equal_folders(ours, theirs)
    again = bothways.load(ours, strict=True)
    assert shape(again) == shape(model)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert worst(numbers(model, case), their_numbers(case, ours)) <= TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fresh_model_of_ours_is_read_by_them(case: Case, tmp_path: Path) -> None:
    """Without a config of theirs to lean on."""
    pattern = bothways.load(references.save(references.build(case), tmp_path / "pattern"))
    model = Model.create(pattern.family, pattern.spec, seed=3)
    folder = model.save(tmp_path / "ours")
    assert worst(numbers(model, case), their_numbers(case, folder)) <= TOLERANCE
    assert shape(bothways.load(folder, strict=True)) == shape(model)


@pytest.mark.parametrize("name", ["bert-masked_lm", "roberta-masked_lm", "modernbert-masked_lm", "llama-causal_lm-tied"])
def test_a_tie_holds(name: str, tmp_path: Path) -> None:
    """The table is one tensor: in a copy, in another type, after training it, and in the file."""
    model = bothways.load(references.save(references.build(case_of(name)), tmp_path / "theirs"))
    hidden = torch.randn(2, model.spec.encoder.hidden_size)
    for one in (model, copy.deepcopy(model), copy.deepcopy(model).to(torch.float64).to(torch.float32)):
        before = one.masked_lm(hidden)
        with torch.no_grad():
            one.encoder.embedding.tokens.weight.add_(0.5)
        assert not torch.allclose(one.masked_lm(hidden), before)
    saved = model.save(tmp_path / "saved")
    assert not any("decoder.weight" in key or "lm_head.weight" in key for key in written(saved))
    assert torch.equal(bothways.load(saved).masked_lm(hidden), model.masked_lm(hidden))


# where a family's decoder has the second name of its table
DECODERS = {
    "bert": "cls.predictions.decoder.weight",
    "roberta": "lm_head.decoder.weight",
    "albert": "predictions.decoder.weight",
    "distilbert": "vocab_projector.weight",
    "electra": "generator_lm_head.weight",
    "modernbert": "decoder.weight",
    "llama": "lm_head.weight",
}
TWICE = [f"{family}-masked_lm" for family in DECODERS if family != "llama"]


@pytest.mark.parametrize("case", [*TWICE, "bert-pretraining", "albert-pretraining", "llama-causal_lm-tied"])
def test_tied_weights_stored_twice(case: str, tmp_path: Path) -> None:
    """Old files hold the table under both names. Equal copies are one; unequal ones are an error."""
    folder = references.save(references.build(case_of(case)), tmp_path / "theirs")
    expected = bothways.load(folder).state_dict()
    tensors = written(folder)
    table = next(name for name in tensors if any(part in name for part in ("word_embeddings", "tok_embeddings", "embed_tokens")))
    decoder = DECODERS[case.partition("-")[0]]
    save_file({**tensors, decoder: tensors[table].clone()}, folder / "model.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in bothways.load(folder).state_dict().items())
    save_file({**tensors, decoder: tensors[table] + 1}, folder / "model.safetensors")
    with pytest.raises(InputError, match=f"{decoder} differs from {table}"):
        bothways.load(folder)


_OLD: dict[str, Any] = {
    "global_rope_theta": 3e3,
    "local_rope_theta": 50.0,
    "global_attn_every_n_layers": 2,
    "layer_types": None,
    "rope_parameters": None,
}


def test_both_spellings_of_modernbert(tmp_path: Path) -> None:
    """The keys of version 4 (bases and a period) and of version 5 (lists and nested parameters) say the same."""
    types = [("full_attention", "sliding_attention")[i % 2] for i in range(5)]
    rope = {
        "full_attention": {"rope_type": "default", "rope_theta": 3e3},
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
    }
    case = Case("modernbert", "masked_lm", {"layer_types": types, "rope_parameters": rope})
    new = references.save(references.build(case), tmp_path / "new")
    config = {**json.loads((new / "config.json").read_text()), **_OLD}
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    (old / "model.safetensors").write_bytes((new / "model.safetensors").read_bytes())
    one, other = bothways.load(new, strict=True), bothways.load(old, strict=True)
    assert one.spec == other.spec
    assert [one.spec.encoder.layer(i).mixer.window is None for i in range(5)] == [True, False, True, False, True]
    assert {layer.mixer.position.theta for layer in one.spec.encoder.layers if layer.mixer.position} == {3e3, 50.0}
    saved = json.loads((other.save(tmp_path / "saved") / "config.json").read_text())
    assert saved["layer_types"] == types
    assert saved["rope_parameters"] == rope
    assert [saved[key] for key in ("global_rope_theta", "local_rope_theta", "global_attn_every_n_layers")] == [3e3, 50.0, 2]
    assert worst(numbers(other, case), their_numbers(case, tmp_path / "saved")) <= TOLERANCE


def test_an_irregular_pattern_is_not_written_as_a_period(tmp_path: Path) -> None:
    case = case_of("modernbert-masked_lm-types-thetas")
    model = bothways.load(references.save(references.build(case), tmp_path / "theirs"))
    model.published = {}
    assert "global_attn_every_n_layers" not in json.loads((model.save(tmp_path / "ours") / "config.json").read_text())


def test_shards(tmp_path: Path) -> None:
    model = references.build(case_of("bert-masked_lm"))
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    model.save_pretrained(whole)  # type: ignore[operator]
    model.save_pretrained(shards, max_shard_size="20KB")  # type: ignore[operator]
    assert len(list(shards.glob("model-*.safetensors"))) > 2
    one, other = bothways.load(whole).state_dict(), bothways.load(shards).state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_old_names_of_norms(tmp_path: Path) -> None:
    folder = references.save(references.build(case_of("bert-masked_lm")), tmp_path / "theirs")
    expected, tensors = bothways.load(folder).state_dict(), written(folder)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for name, t in tensors.items()
    }
    assert sum(name.endswith("gamma") for name in old) == 12
    save_file(old, folder / "model.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in bothways.load(folder).state_dict().items())


def test_pytorch_model_bin(tmp_path: Path) -> None:
    """With the position buffer of old versions in it, which is no weight."""
    folder = references.save(references.build(case_of("roberta-masked_lm")), tmp_path / "theirs")
    expected, tensors = bothways.load(folder).state_dict(), written(folder)
    torch.save({**tensors, "roberta.embeddings.position_ids": torch.arange(258)[None]}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in bothways.load(folder).state_dict().items())


def test_a_config_without_a_model_type(tmp_path: Path) -> None:
    folder = references.save(references.build(case_of("bert-masked_lm")), tmp_path / "theirs")
    config = json.loads((folder / "config.json").read_text())
    expected = bothways.load(folder).state_dict()
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key != "model_type"}))
    with pytest.raises(InputError, match="no model_type; say which family"):
        bothways.load(folder)
    model = bothways.load(folder, family="bert")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert json.loads((model.save(tmp_path / "ours") / "config.json").read_text())["model_type"] == "bert"


def test_half_precision(tmp_path: Path) -> None:
    """Weights are float32 in memory unless told otherwise; a folder says of what type they are."""
    theirs = references.build(case_of("bert-masked_lm")).bfloat16()
    folder = references.save(theirs, tmp_path / "theirs")
    assert bothways.load(folder).encoder.embedding.tokens.weight.dtype == torch.float32
    model = bothways.load(folder, dtype=torch.bfloat16)
    ours = model.save(tmp_path / "ours")
    assert_equal_folders(ours, folder)
    assert json.loads((ours / "config.json").read_text())["dtype"] == "bfloat16"


def test_keys_we_do_not_act_on_are_kept(tmp_path: Path) -> None:
    folder = references.save(references.build(case_of("bert-masked_lm")), tmp_path / "theirs")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "initializer_range": 0.3, "_name_or_path": "x"}))
    saved = json.loads((bothways.load(folder, strict=True).save(tmp_path / "ours") / "config.json").read_text())
    assert saved["initializer_range"] == 0.3
    assert saved["_name_or_path"] == "x"


def test_other_heads_on_the_same_encoder(tmp_path: Path) -> None:
    """A masked-language model becomes a classifier: the trunk is the very same, the head is new, labels are written."""
    pretrained = bothways.load(references.save(references.build(case_of("modernbert-masked_lm")), tmp_path / "lm"))
    like = bothways.load(references.save(references.build(case_of("modernbert-classifier")), tmp_path / "classifier"))
    tuned = pretrained.with_heads(Heads(classifier=like.spec.heads.classifier), labels=("no", "maybe", "yes"))
    assert tuned.encoder is pretrained.encoder
    assert set(tuned.heads) == {"classifier"}
    folder = tuned.save(tmp_path / "tuned")
    assert bothways.load(folder).spec.labels == ("no", "maybe", "yes")
    config = references.reload(case_of("modernbert-classifier"), folder).config
    assert config.id2label == {0: "no", 1: "maybe", 2: "yes"}  # type: ignore[union-attr]


def test_what_the_config_says_of_an_absent_classifier_is_kept(tmp_path: Path) -> None:
    said = {"classifier_pooling": "cls", "classifier_dropout": 0.3, "classifier_bias": True, "decoder_bias": False}
    folder = references.save(references.build(Case("modernbert", "bare", said)), tmp_path / "theirs")
    config = json.loads((bothways.load(folder).save(tmp_path / "ours") / "config.json").read_text())
    assert {key: config[key] for key in said} == said


def test_a_fresh_modernbert_pools_by_the_mean() -> None:
    assert modernbert.FAMILY.write(Spec(encoder=modernbert.SIZES["base"]))["classifier_pooling"] == "mean"


@pytest.mark.parametrize(("code", "kept"), [("model.NeoBERT", False), ("someone/NeoBERT--model.NeoBERT", True)])
def test_code_that_is_not_written_is_not_named(code: str, kept: bool, tmp_path: Path) -> None:
    folder = references.save(references.build(case_of("neobert-bare")), tmp_path / "theirs")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": code}}))
    saved = json.loads((bothways.load(folder).save(tmp_path / "ours") / "config.json").read_text())
    assert ("auto_map" in saved) == kept


def test_saving_over_a_folder_leaves_whole_files(tmp_path: Path) -> None:
    folder = references.save(references.build(case_of("bert-bare")), tmp_path / "model")
    model = bothways.load(folder)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save(folder)
    assert not list(folder.glob("*.partial"))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in bothways.load(folder).state_dict().items())
