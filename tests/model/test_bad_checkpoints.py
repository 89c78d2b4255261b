"""A folder that cannot be used as it is: one line that names the culprit, and nothing half-loaded."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import references
from tests.references import CASES
from tokenizers import Tokenizer, models

import bothways
from bothways.errors import InputError


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("saved")
    names = ("bert-masked_lm", "modernbert-masked_lm", "roberta-classifier", "neobert-masked_lm")
    return {str(case): references.save(references.build(case), root / str(case)) for case in CASES if str(case) in names}


@pytest.fixture
def folder(saved: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A fresh copy of a folder that loads."""

    def copy(name: str = "bert-masked_lm") -> Path:
        target = tmp_path / "model"
        target.mkdir()
        for file in saved[name].iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        bothways.load(target, strict=True)
        return target

    return copy


Folder = Callable[[str], Path]


def refusal(source: Path | str, **options: Any) -> str:
    """The one line with which a folder is refused."""
    with pytest.raises(InputError) as error:
        bothways.load(source, **options)
    message = str(error.value)
    assert "\n" not in message
    assert str(source) in message
    return message


def change_config(folder: Path, **changes: Any) -> None:
    """Set keys of config.json; None removes one."""
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


QUERY = "bert.encoder.layer.3.attention.self.query.weight"


def test_a_weight_missing(folder: Folder) -> None:
    path = folder("bert-masked_lm")
    change_weights(path, lambda tensors: tensors.pop(QUERY))
    assert f"1 weight missing: {QUERY}" in refusal(path)


def test_many_weights_missing(folder: Folder) -> None:
    """A config with more layers than the file: the first are named, the rest counted."""
    path = folder("bert-masked_lm")
    change_config(path, num_hidden_layers=6)
    message = refusal(path)
    assert "16 weights missing: bert.encoder.layer.5." in message
    assert "and 13 more" in message


def test_a_weight_too_many(folder: Folder) -> None:
    path = folder("bert-masked_lm")
    change_weights(path, lambda tensors: tensors.update({"bert.adapter.weight": torch.zeros(2)}))
    assert "1 weight not known to this family: bert.adapter.weight" in refusal(path)


def test_layers_too_many(folder: Folder) -> None:
    path = folder("modernbert-masked_lm")
    change_config(path, num_hidden_layers=4, layer_types=None)
    assert "not known to this family: model.layers.4." in refusal(path)


@pytest.mark.parametrize(
    ("name", "weight", "shape"),
    [
        ("bert-masked_lm", "bert.encoder.layer.0.intermediate.dense.weight", (7, 24)),
        ("bert-masked_lm", QUERY, (12, 24)),
        ("modernbert-masked_lm", "decoder.bias", (99,)),
        ("neobert-masked_lm", "model.transformer_encoder.1.qkv.weight", (72, 12)),
        ("neobert-masked_lm", "model.transformer_encoder.1.qkv.weight", (71, 24)),
    ],
)
def test_a_weight_of_the_wrong_shape(folder: Folder, name: str, weight: str, shape: tuple[int, ...]) -> None:
    path = folder(name)
    change_weights(path, lambda tensors: tensors.update({weight: torch.zeros(shape)}))
    message = refusal(path)
    assert weight in message
    assert "the config implies" in message


@pytest.mark.parametrize("keep", [0, 4, 100, -50])
def test_truncated_safetensors(folder: Folder, keep: int) -> None:
    path = folder("bert-masked_lm")
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert "model.safetensors: truncated or not a safetensors file" in refusal(path)


class _Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(os.environ["BOTHWAYS_TEST_ATTACK"]),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_with_code(folder: Folder, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, and the code does not run."""
    path = folder("bert-masked_lm")
    (path / "model.safetensors").unlink()
    monkeypatch.setenv("BOTHWAYS_TEST_ATTACK", str(tmp_path / "attacked"))
    data = {"weight": _Attack()}
    if how == "torch":
        torch.save(data, path / "pytorch_model.bin")
    else:
        (path / "pytorch_model.bin").write_bytes(pickle.dumps(data, protocol=2))
    assert "pytorch_model.bin: refused: it holds more than tensors" in refusal(path)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 half a zip"])
def test_a_damaged_pickle(folder: Folder, content: bytes) -> None:
    path = folder("bert-masked_lm")
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(content)
    assert "pytorch_model.bin: refused" in refusal(path)


def test_a_pickle_of_something_else(folder: Folder) -> None:
    path = folder("bert-masked_lm")
    (path / "model.safetensors").unlink()
    torch.save({"epoch": 3}, path / "pytorch_model.bin")
    assert "expected a dictionary of tensors" in refusal(path)


def test_a_shard_missing(folder: Folder) -> None:
    path = folder("bert-masked_lm")
    (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "names model-00002-of-00002.safetensors, which is not there" in refusal(path)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}'])
def test_a_damaged_index(folder: Folder, content: str) -> None:
    path = folder("bert-masked_lm")
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json" in refusal(path)


@pytest.mark.parametrize(
    "name",
    ["../outside.safetensors", "/outside.safetensors", "a/../b.safetensors", "..\\x.safetensors", "a.bin", "..", "", 1, None],
)
def test_an_index_names_files_of_its_folder(name: Any, folder: Folder) -> None:
    path = folder()
    (path / "model.safetensors").rename(path.parent / "outside.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert f"names {name!r}, which is no .safetensors file of its folder" in refusal(path)


def test_a_weight_too_large_for_half_precision(folder: Folder) -> None:
    path = folder()

    def enlarge(tensors: dict[str, torch.Tensor]) -> None:
        tensors["bert.embeddings.LayerNorm.bias"][1] = -70_000

    change_weights(path, enlarge)
    message = refusal(path, dtype=torch.float16)
    assert "encoder.embedding.norm.bias has 70000, and float16 ends at 65504" in message
    assert next(bothways.load(path, dtype=torch.bfloat16).parameters()).dtype == torch.bfloat16


def test_a_tensor_of_two_shards(folder: Folder) -> None:
    path = folder()
    (path / "model.safetensors").rename(path / "a.safetensors")
    name = next(iter(load_file(path / "a.safetensors")))
    save_file({name: torch.zeros(1)}, path / "b.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}))
    message = refusal(path)
    assert "b.safetensors" in message
    assert f"holds {name}, which the weights" in message


def test_no_weights(folder: Folder) -> None:
    path = folder("bert-masked_lm")
    (path / "model.safetensors").unlink()
    assert "no model.safetensors" in refusal(path)


def test_no_config(folder: Folder) -> None:
    path = folder("bert-masked_lm")
    (path / "config.json").unlink()
    assert "no config.json" in refusal(path)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not valid JSON"), ("[1]", "expected a JSON object"), ("\xff", "not valid JSON")]
)
def test_a_config_that_is_none(folder: Folder, content: str, message: str) -> None:
    path = folder("bert-masked_lm")
    (path / "config.json").write_bytes(content.encode("latin-1"))
    assert message in refusal(path)


def test_a_file_is_not_a_folder(folder: Folder) -> None:
    assert "a model is a folder" in refusal(folder("bert-masked_lm") / "config.json")


@pytest.mark.parametrize("source", ["./nowhere", "/no/such/folder", "some/where/deep"])
def test_no_such_folder(source: str) -> None:
    assert "no such folder" in refusal(source)


@pytest.mark.parametrize("case", ["modernbert", "bert"])
def test_a_head_that_only_looks_like_a_classifier(case: str, tmp_path: Path) -> None:
    """Classes for tokens, answers or choices: the encoder is read, and what is left out is told."""
    import transformers

    task = {"modernbert": "ForTokenClassification", "bert": "ForMultipleChoice"}[case]
    reference = references.build(next(one for one in CASES if str(one) == f"{case}-classifier"))
    theirs = getattr(transformers, {"modernbert": "ModernBert", "bert": "Bert"}[case] + task)(reference.config)
    path = references.save(theirs, tmp_path / "theirs")
    with pytest.warns(UserWarning, match=rf"the head of \w+{task} is not supported; .* without .*classifier.weight"):
        model = bothways.load(path)
    assert set(model.heads) <= {"pooler"}
    assert "classifier.weight" not in load_file(model.save(tmp_path / "ours") / "model.safetensors")


def test_pickles_are_fetched_where_there_is_nothing_else(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fnmatch

    import huggingface_hub

    repository, cache = folder("bert-masked_lm"), tmp_path / "cache"
    cache.mkdir()

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        for file in repository.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                (cache / file.name).write_bytes(file.read_bytes())
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    torch.save(load_file(repository / "model.safetensors"), repository / "pytorch_model.bin")
    expected = bothways.load("some/model").state_dict()
    assert not (cache / "pytorch_model.bin").exists()
    (cache / "model.safetensors").unlink()
    (repository / "model.safetensors").unlink()
    found = bothways.load("some/model").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_no_such_repository() -> None:
    assert "no such folder" in refusal("nobody/nothing-of-the-kind")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "bert-masked_lm",
            {"model_type": "gpt2"},
            "the family 'gpt2' is not supported; supported: bert, roberta, xlm-roberta",
        ),
        (
            "bert-masked_lm",
            {"position_embedding_type": "relative_key"},
            "position_embedding_type='relative_key' is not supported",
        ),
        ("bert-masked_lm", {"tie_word_embeddings": False}, "tie_word_embeddings=False is not supported"),
        ("bert-masked_lm", {"hidden_act": "gelu_10"}, "hidden_act='gelu_10' is not supported; supported: gelu"),
        ("bert-masked_lm", {"is_decoder": True}, "is_decoder=True is not supported"),
        ("bert-masked_lm", {"add_cross_attention": True}, "add_cross_attention=True is not supported"),
        ("modernbert-masked_lm", {"classifier_pooling": "max"}, "classifier_pooling='max' is not supported"),
        ("modernbert-masked_lm", {"layer_types": ["full_attention"] * 4}, "layer_types must name 5 layers"),
        ("modernbert-masked_lm", {"layer_types": ["linear_attention"] * 5}, "layer_types must name 5 layers"),
        ("modernbert-masked_lm", {"rope_scaling": {"type": "yarn", "factor": 4}}, "rope_scaling"),
        (
            "modernbert-masked_lm",
            {"rope_parameters": {"full_attention": {"rope_type": "longrope", "rope_theta": 1e4}}},
            "rope_parameters.full_attention: rope_type='longrope' is not supported",
        ),
        (
            "modernbert-masked_lm",
            {"rope_parameters": {"full_attention": {"rope_type": "default", "partial_rotary_factor": 0.5}}},
            "rope_parameters.full_attention: partial_rotary_factor=0.5 is not supported",
        ),
        ("modernbert-masked_lm", {"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters: rope_theta is not supported"),
        ("neobert-masked_lm", {"rms_norm": False}, "rms_norm=False is not supported"),
        ("neobert-masked_lm", {"rope": False}, "rope=False is not supported"),
        ("neobert-masked_lm", {"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
    ],
)
def test_a_value_we_cannot_honour(folder: Folder, name: str, changes: dict[str, Any], message: str) -> None:
    path = folder(name)
    change_config(path, **changes)
    assert message in refusal(path)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("bert-masked_lm", {"vocab_size": None}, "no 'vocab_size'"),
        ("bert-masked_lm", {"vocab_size": "many"}, "vocab_size"),
        ("bert-masked_lm", {"hidden_size": "24"}, "hidden_size"),
        ("bert-masked_lm", {"hidden_size": 25}, "heads: 3 does not divide hidden_size 25"),
        ("bert-masked_lm", {"num_attention_heads": 0}, "heads"),
        ("bert-masked_lm", {"max_position_embeddings": "512"}, "max_position_embeddings"),
        ("bert-masked_lm", {"max_position_embeddings": -1}, "max_length"),
        ("bert-masked_lm", {"num_hidden_layers": 2.5}, "num_hidden_layers"),
        ("bert-masked_lm", {"hidden_dropout_prob": "high"}, "hidden_dropout_prob"),
        ("bert-masked_lm", {"hidden_dropout_prob": 1.5}, "hidden_dropout_prob=1.5 should be at least 0 and less than 1"),
        ("bert-masked_lm", {"attention_probs_dropout_prob": 1.0}, "attention_probs_dropout_prob=1.0 should be"),
        ("modernbert-masked_lm", {"mlp_dropout": -0.1}, "mlp_dropout=-0.1 should be"),
        ("neobert-masked_lm", {"dropout": 1}, "dropout=1.0 should be"),
        ("roberta-classifier", {"classifier_dropout": 2}, "classifier_dropout=2.0 should be"),
        ("roberta-classifier", {"problem_type": "guessing"}, "problem_type='guessing' is not supported"),
        ("bert-masked_lm", {"layer_norm_eps": "tiny"}, "layer_norm_eps"),
        ("bert-masked_lm", {"layer_norm_eps": 0.0}, "eps: input should be greater than 0"),
        ("bert-masked_lm", {"intermediate_size": 0}, "size: input should be greater than 0"),
        ("bert-masked_lm", {"num_hidden_layers": 0}, "num_layers: input should be greater than 0"),
        ("bert-masked_lm", {"type_vocab_size": -1}, "token_types"),
        ("bert-masked_lm", {"architectures": 3}, "architectures=3 should be a list"),
        ("modernbert-masked_lm", {"num_hidden_layers": 0}, "num_hidden_layers=0 should be at least 1"),
        ("modernbert-masked_lm", {"layer_types": 3}, "layer_types=3 should be a list"),
        ("modernbert-masked_lm", {"global_rope_theta": 0.0, "rope_parameters": None}, "theta: input should be greater than 0"),
        ("bert-masked_lm", {"id2label": {"a": "b"}}, "id2label"),
        ("bert-masked_lm", {"id2label": ["a", "b"]}, "id2label"),
        ("roberta-classifier", {"id2label": {"0": "a", "1": "b"}}, "classifier.out_proj"),
        ("modernbert-masked_lm", {"local_attention": "wide"}, "local_attention"),
        ("modernbert-masked_lm", {"num_attention_heads": 24}, "even head size"),
        ("modernbert-masked_lm", {"rope_parameters": {"full_attention": {"rope_theta": "big"}}}, "rope_theta"),
        ("modernbert-masked_lm", {"layer_types": "full_attention"}, "layer_types"),
        ("modernbert-masked_lm", {"global_attn_every_n_layers": 0, "layer_types": None}, "global_attn_every_n_layers"),
    ],
)
def test_a_wrong_or_contradictory_value(folder: Folder, name: str, changes: dict[str, Any], message: str) -> None:
    path = folder(name)
    change_config(path, **changes)
    assert message in refusal(path)


def test_an_unknown_key_is_told_once(folder: Folder) -> None:
    path = folder("bert-masked_lm")
    change_config(path, rotary_secret=3, other=1)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        bothways.load(path)
    assert [str(one.message) for one in told] == [
        f"{path / 'config.json'}: keys that this family does not know: other, rotary_secret"
    ]
    assert "keys that this family does not know: other, rotary_secret" in refusal(path, strict=True)


def _tokenizer(size: int) -> Tokenizer:
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3} | {f"w{i}": i for i in range(4, size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    return tokenizer


def test_a_tokenizer_larger_than_the_embedding(folder: Folder) -> None:
    path = folder("bert-masked_lm")
    _tokenizer(102).save(str(path / "tokenizer.json"))
    assert "the tokenizer has ids up to 101, the embedding has 101 rows" in refusal(path)
    _tokenizer(101).save(str(path / "tokenizer.json"))
    assert bothways.load(path).tokenizer is not None


@pytest.mark.parametrize("content", ["{", '{"model": 3}', ""])
def test_a_damaged_tokenizer(folder: Folder, content: str) -> None:
    path = folder("bert-masked_lm")
    (path / "tokenizer.json").write_text(content)
    assert "the tokenizer cannot be read" in refusal(path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer_config.json", "{", "tokenizer_config.json: not valid JSON"),
        ("vocab.txt", "a\nb\n", "no [CLS] and [SEP]"),
    ],
)
def test_damaged_tokenizer_files(folder: Folder, file: str, content: str, message: str) -> None:
    path = folder("bert-masked_lm")
    (path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    (path / file).write_text(content)
    assert message in refusal(path)


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ({"pooling_mode_lasttoken": True}, "pooling lasttoken is not supported"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "pooling cls+mean is not supported"),
        ({"pooling_mode": "weightedmean"}, "pooling weightedmean is not supported"),
    ],
)
def test_a_pooling_we_do_not_have(folder: Folder, pooling: dict[str, Any], message: str) -> None:
    path = folder("bert-masked_lm")
    steps = [
        {"idx": i, "name": str(i), "path": p, "type": f"x.{k}"}
        for i, (p, k) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling")])
    ]
    (path / "modules.json").write_text(json.dumps(steps))
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    assert message in refusal(path)


def test_a_step_we_do_not_have(folder: Folder) -> None:
    path = folder("bert-masked_lm")
    (path / "modules.json").write_text(
        json.dumps([{"path": "", "type": "x.Transformer"}, {"path": "2_Dense", "type": "x.Dense"}])
    )
    assert "the module Dense is not supported" in refusal(path)


STEPS = [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules.json": STEPS}, "1_Pooling/config.json: not there, though modules.json names it"),
        ({"modules.json": {"a": 1}}, "modules.json: expected a list of modules"),
        ({"modules.json": [*STEPS[:1], {"path": "1_Pooling"}]}, "modules.json: module 1 should say its 'type' and its 'path'"),
        ({"modules.json": [{"type": "x.Transformer"}]}, "module 0 should say"),
        ({"modules.json": ["Transformer"]}, "module 0 should say"),
        ({"modules.json": STEPS[:1], "sentence_bert_config.json": []}, "sentence_bert_config.json: expected a JSON object"),
        ({"modules.json": STEPS[:1], "sentence_bert_config.json": {"max_seq_length": "all"}}, "max_seq_length='all' should be"),
        ({"modules.json": STEPS[:1], "sentence_bert_config.json": {"max_seq_length": -3}}, "max_seq_length=-3 should be"),
        ({"modules.json": STEPS[:1], "config_sentence_transformers.json": {"prompts": ["a"]}}, "prompts=['a'] should be"),
        ({"modules.json": STEPS[:1], "config_sentence_transformers.json": {"prompts": {"query": 3}}}, "a text for each name"),
        ({"modules.json": STEPS, "1_Pooling/config.json": {"pooling_mode": 3}}, "pooling 3 is not supported"),
    ],
)
def test_damaged_embedding_settings(folder: Folder, files: dict[str, Any], message: str) -> None:
    path = folder("bert-masked_lm")
    for name, content in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(json.dumps(content))
    assert message in refusal(path)


def test_a_folder_that_cannot_be_written(folder: Folder, tmp_path: Path) -> None:
    model = bothways.load(folder("bert-masked_lm"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write"):
        model.save(tmp_path / "file" / "model")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_full_disk_leaves_the_old_weights(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    path = folder("bert-masked_lm")
    model = bothways.load(path)
    before = (path / "model.safetensors").read_bytes()

    def full(tensors: object, file: Path, metadata: object = None) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(InputError, match="No space left on device"):
        model.save(path)
    assert (path / "model.safetensors").read_bytes() == before
    assert not list(path.glob("*.partial"))
