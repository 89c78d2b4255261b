"""Checkpoints of TensorFlow 1, fairseq and Composer give the very model that `transformers` wrote."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests import references
from tests.model import bundle_writer
from tests.model.conftest import word_tokenizer
from tests.parity.test_parity import TOLERANCE, run, texts, worst
from tests.references import CASES, Case

import bothways
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError
from bothways.model.importing import import_model, is_foreign
from bothways.model.model import Model
from bothways.model.tensorflow import kind_of, published_names
from bothways.ragged import Batch


def saved(name: str, tmp_path: Path) -> tuple[Case, Path]:
    case = next(one for one in CASES if str(one) == name)
    return case, references.save(references.build(case), tmp_path / "theirs")


def assert_same(ours: Model, folder: Path) -> None:
    expected = bothways.load(folder).state_dict()
    found = ours.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


# -- TensorFlow 1 -------------------------------------------------------------------------------


def scope(name: str) -> str:
    """A model folder's name in TensorFlow's words, for BERT and ELECTRA."""
    path = re.sub(r"layer\.(\d+)", r"layer_\1", name).replace(".", "/")
    path = re.sub(r"_embeddings/weight$", "_embeddings", path)
    path = re.sub(r"LayerNorm/weight$", "LayerNorm/gamma", re.sub(r"LayerNorm/bias$", "LayerNorm/beta", path))
    path = path.replace("cls/predictions/bias", "cls/predictions/output_bias")
    path = re.sub(r"seq_relationship/(weight|bias)", r"seq_relationship/output_\1", path).replace(
        "output_weight", "output_weights"
    )
    path = re.sub(r"^classifier/(weight|bias)", lambda m: {"weight": "output_weights", "bias": "output_bias"}[m[1]], path)
    return re.sub(r"/weight$", "/kernel", path)


def tensorflow(weights: Mapping[str, torch.Tensor], slots: bool = True) -> dict[str, np.ndarray]:
    """Weights as the original code names and lays them, with an optimiser's slots beside them."""
    found: dict[str, np.ndarray] = {"global_step": np.array(3, np.int64)} if slots else {}
    for name, tensor in weights.items():
        path = scope(name)
        found[path] = np.ascontiguousarray(tensor.numpy().T) if path.endswith("/kernel") else tensor.numpy()
        if slots:
            found |= {f"{path}/adam_m": np.zeros(2, np.float32), f"{path}/adam_v": np.zeros(2, np.float32)}
    return found


def google(folder: Path, theirs: Path, words: list[str] | None = None) -> Path:
    """A release of google-research from a folder of theirs."""
    bundle_writer.write(folder / "bert_model.ckpt", tensorflow(load_file(theirs / "model.safetensors")))
    config = json.loads((theirs / "config.json").read_text())
    kept = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
            "max_position_embeddings", "type_vocab_size", "hidden_dropout_prob", "attention_probs_dropout_prob")  # fmt: skip
    settings = {key: config[key] for key in kept} | {"directionality": "bidi", "pooler_num_fc_layers": 3}
    (folder / "bert_config.json").write_text(json.dumps(settings))
    if words:
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder


@pytest.mark.parametrize("name", ["bert-pretraining", "bert-classifier"])
def test_bert_of_tensorflow(name: str, tmp_path: Path) -> None:
    case, theirs = saved(name, tmp_path)
    folder = google(tmp_path / "uncased", theirs)
    for source in (folder, folder / "bert_model.ckpt", folder / "bert_model.ckpt.index"):
        assert is_foreign(source)
        assert_same(import_model(source, strict=True), theirs)
    again = import_model(folder).save(tmp_path / "out")
    with torch.no_grad():
        numbers = run(bothways.load(again, strict=True), Batch.of(*texts(case)))
        assert worst(numbers, references.run(case, references.reload(case, again), *texts(case))) <= TOLERANCE


SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.mark.parametrize(("words", "small"), [(["the", "cat"], True), (["the", "The", "Cat"], False)])
def test_whether_capitals_are_kept_is_in_the_word_list(words: list[str], small: bool, tmp_path: Path) -> None:
    _, theirs = saved("bert-pretraining", tmp_path)
    model = import_model(google(tmp_path / "google", theirs, SPECIALS + words))
    assert model.tokenizer is not None
    the = [5, 5] if small else [5, 6]
    assert model.tokenizer.encode(["the The"], specials=False)[0].tolist() == the
    again = bothways.load(model.save(tmp_path / "out"))
    assert again.tokenizer is not None
    assert again.tokenizer.encode(["the The"], specials=False)[0].tolist() == the


def test_what_tensorflow_lacks(tmp_path: Path) -> None:
    _, theirs = saved("bert-pretraining", tmp_path)
    folder = google(tmp_path / "google", theirs)
    (folder / "bert_config.json").rename(tmp_path / "config")
    with pytest.raises(InputError, match=r"no bert_config\.json beside the checkpoint"):
        import_model(folder)
    with pytest.raises(InputError, match=r"no config\.json; .*bothways convert"):
        bothways.load(folder)
    (tmp_path / "config").rename(folder / "bert_config.json")
    bundle_writer.write(folder / "other.ckpt", {"x": np.zeros(2, np.float32)})
    with pytest.raises(InputError, match=r"2 TensorFlow checkpoints \(bert_model.ckpt, other.ckpt\); name one"):
        import_model(folder)
    with pytest.raises(InputError, match="of no BERT, ELECTRA or ALBERT"):
        import_model(folder / "other.ckpt")
    with pytest.raises(InputError, match="no TensorFlow checkpoint here"):
        import_model(tmp_path / "theirs", "tf1")


def keys(architecture: str, **settings: Any) -> set[str]:
    """The weights of a tiny `transformers` model, those stored under another name left out."""
    import transformers

    cls = getattr(transformers, architecture)
    small = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    model = cls(cls.config_class(**small, embedding_size=4, **settings))
    tied = {"predictions.decoder.weight", "predictions.decoder.bias", "generator_lm_head.weight"}
    return {name for name, _ in model.named_parameters(remove_duplicate=False)} - tied


ALBERT_LAYER = "bert/encoder/transformer/group_0/inner_group_0"
ALBERT = [
    *(f"bert/embeddings/{one}" for one in ("word_embeddings", "token_type_embeddings", "position_embeddings")),
    *(f"bert/embeddings/LayerNorm/{one}" for one in ("beta", "gamma")),
    *(f"{ALBERT_LAYER}/{one}/{part}" for one in ("LayerNorm", "LayerNorm_1") for part in ("beta", "gamma")),
    *(f"{ALBERT_LAYER}/attention_1/self/{one}/{part}" for one in ("query", "key", "value") for part in ("bias", "kernel")),
    *(
        f"{scope}/{part}"
        for scope in (
            "bert/encoder/embedding_hidden_mapping_in",
            "bert/pooler/dense",
            f"{ALBERT_LAYER}/attention_1/output/dense",
            f"{ALBERT_LAYER}/ffn_1/intermediate/dense",
            f"{ALBERT_LAYER}/ffn_1/intermediate/output/dense",
            "cls/predictions/transform/dense",
        )
        for part in ("bias", "kernel")
    ),
    *(f"cls/predictions/transform/LayerNorm/{one}" for one in ("beta", "gamma")),
    *("cls/predictions/output_bias", "cls/seq_relationship/output_bias", "cls/seq_relationship/output_weights"),
]


@pytest.mark.parametrize("module", ["", "module/"])
def test_names_of_albert(module: str) -> None:
    """Every weight of theirs is named, and none twice; the right one, for those that are easily mistaken."""
    names = [module + name for name in ALBERT]
    assert kind_of(names, "here") == "albert"
    found = published_names([*names, "global_step", f"{names[0]}/adam_m"], "albert")
    assert set(found) == set(names)
    assert sorted(found.values()) == sorted(keys("AlbertForPreTraining"))
    layer = "albert.encoder.albert_layer_groups.0.albert_layers.0."
    chosen = {
        f"{ALBERT_LAYER}/LayerNorm/gamma": layer + "attention.LayerNorm.weight",
        f"{ALBERT_LAYER}/LayerNorm_1/gamma": layer + "full_layer_layer_norm.weight",
        f"{ALBERT_LAYER}/attention_1/output/dense/kernel": layer + "attention.dense.weight",
        f"{ALBERT_LAYER}/ffn_1/intermediate/dense/kernel": layer + "ffn.weight",
        f"{ALBERT_LAYER}/ffn_1/intermediate/output/dense/kernel": layer + "ffn_output.weight",
        "bert/embeddings/LayerNorm/beta": "albert.embeddings.LayerNorm.bias",
        "cls/predictions/transform/LayerNorm/beta": "predictions.LayerNorm.bias",
        "cls/seq_relationship/output_weights": "sop_classifier.classifier.weight",
    }
    assert {name: found[module + name] for name in chosen} == chosen
    assert published_names(["output_weights", "output_bias"], "albert")["output_weights"] == "classifier.weight"


@pytest.mark.parametrize(
    ("said", "activation"),
    [
        ({"hidden_act": "gelu", "hidden_dropout_prob": 0.1}, "gelu"),
        ({"hidden_act": "gelu", "hidden_dropout_prob": 0}, "gelu_tanh"),
        ({"hidden_act": "gelu"}, "gelu_tanh"),
        ({"hidden_act": "relu", "hidden_dropout_prob": 0}, "relu"),
    ],
)
def test_the_activation_of_albert_is_its_releases(said: dict[str, Any], activation: str, tmp_path: Path) -> None:
    """Both releases say `gelu`; the second is published under the name of what the code computes."""
    import transformers

    small = {"vocab_size": 20, "embedding_size": 4, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"intermediate_size": 12, "max_position_embeddings": 9}
    weights = transformers.AlbertForPreTraining(transformers.AlbertConfig(**small)).state_dict()
    named = {name: weights[theirs].numpy() for name, theirs in published_names(ALBERT, "albert").items()}
    named = {name: np.ascontiguousarray(one.T) if name.endswith("/kernel") else one for name, one in named.items()}
    bundle_writer.write(tmp_path / "model.ckpt-best", named)
    (tmp_path / "albert_config.json").write_text(json.dumps({**small, **said}))
    assert import_model(tmp_path).spec.encoder.layer(0).mlp.activation == activation


def electra_names() -> list[str]:
    """Of a pretraining checkpoint: two networks that share embeddings, but not their projections."""
    discriminator = {scope(name) for name in keys("ElectraForPreTraining")}
    discriminator = {name.replace("dense_prediction", "dense_1") for name in discriminator}
    generator = {scope(name) for name in keys("ElectraForMaskedLM")}
    generator = {re.sub(r"^electra/(?!embeddings/)", "generator/", name) for name in generator}
    return sorted(
        discriminator | {name.replace("generator_lm_head/bias", "generator_predictions/output_bias") for name in generator}
    )


def test_names_of_electra() -> None:
    names = electra_names()
    assert kind_of(names, "here") == "electra"
    assert "generator_predictions/output_bias" in names
    for part, architecture in (("discriminator", "ElectraForPreTraining"), ("generator", "ElectraForMaskedLM")):
        found = published_names([*names, "global_step", "generator/temperature"], "electra", part)  # type: ignore[arg-type]
        assert sorted(found.values()) == sorted(keys(architecture)), part
    own = [name.replace("electra/embeddings/", "generator/embeddings/") for name in names]
    found = published_names([*names, *own], "electra", "generator")
    assert len(set(found.values())) == len(found)
    assert "electra/embeddings/word_embeddings" not in found


# -- fairseq ------------------------------------------------------------------------------------


def fairseq(weights: Mapping[str, torch.Tensor], fused: bool = False, side: str = "encoder") -> dict[str, torch.Tensor]:
    """A RoBERTa's weights as fairseq names them."""
    renamed = {
        r"roberta\.embeddings\.word_embeddings": "sentence_encoder.embed_tokens",
        r"roberta\.embeddings\.position_embeddings": "sentence_encoder.embed_positions",
        r"roberta\.embeddings\.LayerNorm": "sentence_encoder.emb_layer_norm",
        r"roberta\.encoder\.layer\.": "sentence_encoder.layers.",
        r"attention\.self\.query": "self_attn.q_proj",
        r"attention\.self\.key": "self_attn.k_proj",
        r"attention\.self\.value": "self_attn.v_proj",
        r"attention\.output\.dense": "self_attn.out_proj",
        r"attention\.output\.LayerNorm": "self_attn_layer_norm",
        r"intermediate\.dense": "fc1",
        r"(\d)\.output\.dense": r"\1.fc2",
        r"(\d)\.output\.LayerNorm": r"\1.final_layer_norm",
    }
    found: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if "token_type" in name:
            assert not tensor.any()
            continue
        for pattern, ours in renamed.items():
            name = re.sub(pattern, ours, name)
        name = re.sub(r"^classifier\.", "classification_heads.mnli.", name)
        found[name if name.startswith("classification") else f"{side}.{name}"] = tensor
    if fused:
        for name in [name for name in found if ".q_proj." in name]:
            parts = [found.pop(name.replace("q_proj", f"{one}_proj")) for one in "qkv"]
            found[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    if "lm_head.dense.weight" in weights:
        found[f"{side}.lm_head.weight"] = found[f"{side}.sentence_encoder.embed_tokens.weight"]
    found[f"{side}.sentence_encoder.version"] = torch.ones(1)
    found[f"{side}.sentence_encoder.embed_positions._float_tensor"] = torch.zeros(1)
    return found


def roberta(name: str, tmp_path: Path) -> tuple[Case, Path, dict[str, torch.Tensor]]:
    """A RoBERTa of theirs whose only token type is zero, as in all that came from fairseq."""
    case = next(one for one in CASES if str(one) == name)
    model = references.build(case)
    with torch.no_grad():
        model.get_parameter("roberta.embeddings.token_type_embeddings.weight").zero_()
    theirs = references.save(model, tmp_path / "theirs")
    return case, theirs, load_file(theirs / "model.safetensors")


OPTIONS = argparse.Namespace(
    arch="roberta_base",
    encoder_attention_heads=3,
    encoder_ffn_embed_dim=20,
    dropout=0.1,
    attention_dropout=0.1,
    activation_fn="gelu",
)


@pytest.mark.parametrize("name", ["roberta-masked_lm", "roberta-classifier"])
@pytest.mark.parametrize("layout", ["args", "cfg", "fused"])
@pytest.mark.filterwarnings("ignore:.*there is no tokenizer:UserWarning")
def test_roberta_of_fairseq(name: str, layout: str, tmp_path: Path) -> None:
    case, theirs, weights = roberta(name, tmp_path)
    old = layout == "fused"
    options: dict[str, Any] = {"args": None, "cfg": {"model": OPTIONS}} if layout == "cfg" else {"args": OPTIONS}
    state = {**options, "model": fairseq(weights, old, "decoder" if old else "encoder"), "extra_state": {"epoch": 1}}
    file = tmp_path / "roberta.base" / "model.pt"
    file.parent.mkdir()
    torch.save(state, file)
    for source in (file, file.parent):
        assert is_foreign(source)
        assert_same(import_model(source, strict=True), theirs)
    again = import_model(file, "fairseq").save(tmp_path / "out")
    with torch.no_grad():
        numbers = run(bothways.load(again, strict=True), Batch.of(*texts(case)))
        assert worst(numbers, references.run(case, references.reload(case, again), *texts(case))) <= TOLERANCE
    assert import_model(file, family="xlm-roberta").family.name == "xlm-roberta"


def test_the_tokenizer_of_fairseq(tmp_path: Path) -> None:
    """The dictionary's words are numbers of GPT-2's tokens: the ids are the dictionary's."""
    _, _, weights = roberta("roberta-masked_lm", tmp_path)
    torch.save({"args": OPTIONS, "model": fairseq(weights)}, tmp_path / "model.pt")
    gpt2 = {"t": 0, "h": 1, "e": 2, "th": 3, "the": 4, "\u0120": 5, "a": 6}
    (tmp_path / "encoder.json").write_text(json.dumps(gpt2))
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\nt h\nth e\n")
    (tmp_path / "dict.txt").write_text("4 90\n5 80\n0 70\n1 60\n2 50\n3 40\n6 30\nmadeupword0000 0\n")
    model = import_model(tmp_path / "model.pt")
    assert model.tokenizer is not None
    assert model.tokenizer.encode(["the hea"])[0].tolist() == [0, 4, 5, 7, 8, 10, 2]
    assert (model.tokenizer.mask_id, model.tokenizer.pad_id) == (12, 1)
    assert model.max_seq_length == model.spec.encoder.max_length
    (tmp_path / "dict.txt").write_text("99 3\n")
    with pytest.raises(InputError, match=r"dict\.txt and encoder\.json do not go together"):
        import_model(tmp_path / "model.pt")


def test_several_classifiers_of_fairseq(tmp_path: Path) -> None:
    _, _, weights = roberta("roberta-classifier", tmp_path)
    model = fairseq(weights)
    model |= {name.replace("mnli", "rte"): tensor for name, tensor in model.items() if "mnli" in name}
    torch.save({"args": OPTIONS, "model": model}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"2 classifiers \(mnli, rte\)"):
        import_model(tmp_path / "model.pt")


# -- Composer -----------------------------------------------------------------------------------


def composer(theirs: Path, inside: bool = True) -> dict[str, Any]:
    """A checkpoint as Composer saves one, random states and times included."""
    weights = load_file(theirs / "model.safetensors")
    config = {**json.loads((theirs / "config.json").read_text()), "id2label": {0: "a", 1: "b", 2: "c"}}
    tokenizer = {"tokenizer": {"file_extension": ".json", "content": json.loads(word_tokenizer().to_str())}}
    hub = {"model": {"config": {"file_extension": ".json", "content": config, "class": "x"}}, "tokenizer": tokenizer}
    return {
        "state": {
            "model": {f"model.{name}": tensor for name, tensor in weights.items()},
            "timestamp": {"Timestamp": {"batch": 3, "total_wct": datetime.timedelta(seconds=3)}},
            **({"integrations": {"huggingface": hub}} if inside else {}),
        },
        "rng": [{"python": (3, (1, 2), None), "numpy": np.random.RandomState(0).get_state()}],
    }


@pytest.mark.parametrize("name", ["bert-masked_lm", "modernbert-masked_lm"])
def test_a_checkpoint_of_composer(name: str, tmp_path: Path) -> None:
    _, theirs = saved(name, tmp_path)
    file = tmp_path / "ep0-ba3-rank0.pt"
    torch.save(composer(theirs), file)
    model = import_model(file, strict=True)
    assert_same(model, theirs)
    assert model.tokenizer is not None
    assert model.tokenizer.fingerprint == Tokenizer(word_tokenizer()).fingerprint
    again = bothways.load(model.save(tmp_path / "out"), strict=True)
    assert_same(again, theirs)


def test_composer_without_a_config(tmp_path: Path) -> None:
    _, theirs = saved("bert-masked_lm", tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save(composer(theirs, inside=False), folder / "latest.pt")
    with pytest.raises(InputError, match="no config in it, and none beside it"):
        import_model(folder)
    (folder / "config.json").write_text((theirs / "config.json").read_text())
    word_tokenizer().save(str(folder / "tokenizer.json"))
    model = import_model(folder)
    assert_same(model, theirs)
    assert model.tokenizer is not None


# -- what is refused ----------------------------------------------------------------------------


class _Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(os.environ["BOTHWAYS_TEST_ATTACK"]),)


@pytest.mark.parametrize("origin", [None, "fairseq", "composer"])
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_does_not_run(origin: Any, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTHWAYS_TEST_ATTACK", str(tmp_path / "attacked"))
    data = {"args": OPTIONS, "model": {}, "state": {"model": {}}, "other": _Attack()}
    file = tmp_path / "model.pt"
    if how == "torch":
        torch.save(data, file)
    else:
        file.write_bytes(pickle.dumps(data, protocol=2))
    with pytest.raises(InputError, match=r"model\.pt: refused: it holds more than tensors") as error:
        import_model(file, origin)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    ("state", "origin", "message"),
    [
        ({"weight": torch.zeros(2)}, None, "no checkpoint of fairseq or Composer; weights alone belong into a model folder"),
        ([1, 2], None, "no checkpoint of fairseq or Composer"),
        ({"args": {}, "model": {}}, "composer", "no checkpoint of Composer"),
        ({"state": {"model": {}}}, "fairseq", "no checkpoint of fairseq;"),
        ({"args": OPTIONS, "model": {"encoder.weight": torch.zeros(2)}}, None, "a fairseq checkpoint, but of no RoBERTa"),
    ],
    ids=str,
)
def test_what_is_none(state: Any, origin: Any, message: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(InputError, match=re.escape(message)):
        import_model(tmp_path / "model.pt", origin)


def test_which_of_several(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        torch.save({}, tmp_path / name)
    with pytest.raises(InputError, match=r"2 checkpoints \(a.pt, b.pt\); name one"):
        import_model(tmp_path)
    with pytest.raises(InputError, match="no checkpoint of TensorFlow"):
        import_model(tmp_path / "nothing")
    assert not is_foreign(tmp_path / "nothing")
