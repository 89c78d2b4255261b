"""Damaged and crafted checkpoints of other programs are refused in a line; nothing of numpy's is called by one."""

from __future__ import annotations

import argparse
import codecs
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.model import bundle_writer as writer

from bothways.errors import InputError
from bothways.model.composer import PLAIN
from bothways.model.importing import import_model
from bothways.model.tensor_bundle import TensorBundle
from bothways.model.weights import read_pickle, read_weights


class Reduced:
    """Pickled as a call of anything."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def test_numpy_is_never_called_by_a_file(tmp_path: Path) -> None:
    """numpy makes an array of objects over any bytes, which are then pointers into memory: a crash, or worse."""
    fake = Reduced(codecs.encode, "A" * 8, "latin1")
    evil = Reduced(np.ndarray, (1,), Reduced(np.dtype, "O"), fake)
    torch.save({"state": {"model": {"x": Reduced(np.ndarray, evil)}}}, tmp_path / "a.pt")
    code = "import sys; from bothways.model.importing import import_model; import_model(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.pt")], capture_output=True, text=True, check=False)
    assert done.returncode == 1  # a segmentation fault is -11
    assert "InputError" in done.stderr
    for call in (Reduced(np.ndarray, (10**13,)), np.zeros(3), np.float32(1), np.random.RandomState(0).get_state()[1]):
        torch.save({"x": call}, tmp_path / "a.pt")
        assert not isinstance(read_pickle(tmp_path / "a.pt", PLAIN)["x"], np.ndarray | np.generic)


def refusal(call: Any, *arguments: Any) -> str:
    """The one line with which something is refused."""
    with pytest.raises(InputError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "content", [b"\x80\x02.", b"hello world\n", b"", b"\x80\x02K\x01a.", b"PK\x03\x04", b"\x80\x02X\x01\0\0\0\xff."]
)
def test_a_damaged_pickle(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    assert "a.pt: refused: " in refusal(import_model, tmp_path / "a.pt")
    assert "pytorch_model.bin: refused: " in refusal(read_weights, tmp_path)


def test_a_call_that_fails_in_a_pickle(tmp_path: Path) -> None:
    torch.save({"a": Reduced(bytearray, 10**15)}, tmp_path / "a.pt")
    assert "a.pt: refused: " in refusal(import_model, tmp_path / "a.pt")


@pytest.mark.parametrize("model", [{1: torch.zeros(1)}, {"encoder.sentence_encoder.embed_tokens.weight": 3}])
def test_weights_that_are_none(model: Any, tmp_path: Path) -> None:
    torch.save(model, tmp_path / "pytorch_model.bin")
    assert "expected a dictionary of tensors" in refusal(read_weights, tmp_path)
    for state in ({"args": argparse.Namespace(encoder_attention_heads=1), "model": model}, {"state": {"model": model}}):
        torch.save(state, tmp_path / "a.pt")
        assert "expected a dictionary of tensors" in refusal(import_model, tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("hub", "message"),
    [
        (3, "no config in it"),
        ({"model": None}, "no config in it"),
        ({"model": {"config": None}}, "no config in it"),
        ({"model": {"config": {"content": 3}}}, "expected its config to be a JSON object"),
        ({"model": {"config": {"content": {"model_type": "bert", "id2label": None}}}}, "a.pt"),
        ({"model": {"config": {"content": {}}}, "tokenizer": {"tokenizer": 3}}, "a.pt: the tokenizer in it cannot be read"),
        (
            {"model": {"config": {"content": {}}}, "tokenizer": {"t": {"file_extension": ".txt", "content": 3}}},
            "a.pt: the tokenizer in it cannot be read",
        ),
        (
            {"model": {"config": {"content": {}}}, "tokenizer": {"tokenizer": {"file_extension": ".json", "content": {"x": 1}}}},
            "a.pt: the tokenizer cannot be read",
        ),
    ],
)
def test_what_composer_kept_is_damaged(hub: Any, message: str, tmp_path: Path) -> None:
    torch.save({"state": {"model": {"a": torch.zeros(1)}, "integrations": {"huggingface": hub}}}, tmp_path / "a.pt")
    assert message in refusal(import_model, tmp_path / "a.pt")


def test_word_lists_that_are_not_utf8(tmp_path: Path) -> None:
    writer.write(tmp_path / "m.ckpt", {"bert/embeddings/word_embeddings": np.zeros((2, 2), np.float32)})
    (tmp_path / "bert_config.json").write_text("{}")
    (tmp_path / "vocab.txt").write_bytes("[PAD]\n\u00e4\n".encode("latin-1"))
    assert "vocab.txt: not utf-8 at byte 6" in refusal(import_model, tmp_path)
    tensors = {f"encoder.sentence_encoder.embed_{one}.weight": torch.zeros(9, 4) for one in ("tokens", "positions")}
    torch.save({"args": argparse.Namespace(encoder_attention_heads=1), "model": tensors}, tmp_path / "a.pt")
    (tmp_path / "dict.txt").write_text("0 1\n")
    (tmp_path / "encoder.json").write_text(json.dumps({"a": 0}))
    (tmp_path / "vocab.bpe").write_bytes("#version\n\u00e4 b\n".encode("latin-1"))
    assert "vocab.bpe" in refusal(import_model, tmp_path / "a.pt")


def entry(shape: tuple[int, ...], offset: int, size: int, content: bytes = bytes(8)) -> bytes:
    """A tensor of float32 in the words of an index."""
    shapes = b"".join(writer.field(2, writer.field(1, one)) for one in shape)
    numbers = writer.field(1, 1) + writer.field(2, shapes) + writer.field(4, offset) + writer.field(5, size)
    return numbers + writer.number(6 * 8 + 5) + writer.checksum(content).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("crafted", "message"),
    [
        (entry((2,), 2**70, 8), "the bytes of x are damaged or cut short"),
        (entry((2,), 4, 8), "the bytes of x are damaged or cut short"),
        (entry((2,), 0, 2**45), "the bytes of x are damaged or cut short"),
        (entry((2**43,), 0, 2**45), "the bytes of x are damaged or cut short"),
        (entry((2**61 - 1,), 0, 2**63 - 4), "the bytes of x are damaged or cut short"),
        (entry((2**32, 2**32), 0, 0, b""), "the bytes of x are damaged or cut short"),
        (entry((2**64 - 1,), 0, 8), "the bytes of x are damaged or cut short"),
        (writer.field(1, 1) + writer.field(2, 2**45), "damaged; fetch it again"),
        (writer.field(1, 1) + writer.field(2, writer.field(2, 2**45)), "damaged; fetch it again"),
        (writer.field(1, b"1"), "damaged; fetch it again"),
    ],
)
def test_a_crafted_index(crafted: bytes, message: str, tmp_path: Path) -> None:
    """Sizes that no file has are refused before they are asked of the memory."""
    (tmp_path / "m.index").write_bytes(writer.table([(b"", writer.field(1, 1)), (b"x", crafted)]))
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(8))
    assert message in refusal(lambda: TensorBundle(tmp_path / "m").read("x"))


def test_an_index_that_is_not_crafted(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(writer.table([(b"", writer.field(1, 1)), (b"x", entry((2,), 0, 8))]))
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(8))
    assert TensorBundle(tmp_path / "m").read("x").tolist() == [0, 0]


def fairseq(file: Path, head: str, **options: Any) -> Path:
    """A random RoBERTa of one layer and one head of fairseq's: a classifier or `lm_head`."""
    hidden, body, made = 6, "encoder.sentence_encoder.", {}
    for name, rows, columns in (
        *((f"{body}layers.0.self_attn.{one}_proj", hidden, hidden) for one in ("q", "k", "v", "out")),
        (f"{body}layers.0.fc1", 10, hidden),
        (f"{body}layers.0.fc2", hidden, 10),
        *(((f"{head}.dense", hidden, hidden), (f"{head}.out_proj", 2, hidden)) if "heads" in head else ()),
        *(((f"{head}.dense", hidden, hidden),) if "heads" not in head else ()),
    ):
        made |= {f"{name}.weight": torch.randn(rows, columns), f"{name}.bias": torch.randn(rows)}
    for name in ("emb_layer_norm", "layers.0.self_attn_layer_norm", "layers.0.final_layer_norm"):
        made |= {f"{body}{name}.weight": torch.randn(hidden), f"{body}{name}.bias": torch.randn(hidden)}
    made |= {f"{body}embed_tokens.weight": torch.randn(9, hidden), f"{body}embed_positions.weight": torch.randn(12, hidden)}
    torch.save({"args": argparse.Namespace(**{"encoder_attention_heads": 2, **options}), "model": made}, file)
    return file


CLASSIFIER = "classification_heads.x"


@pytest.mark.filterwarnings("ignore:.*there is no tokenizer:UserWarning")
@pytest.mark.parametrize(
    ("said", "activation"),
    [("gelu", "gelu"), ("gelu_accurate", "gelu_tanh"), ("gelu_fast", "gelu_tanh"), ("relu", "relu")],
)
def test_what_fairseq_calls_its_activations(said: str, activation: str, tmp_path: Path) -> None:
    """The options name no size of the inner layer: it is the weights'."""
    model = import_model(fairseq(tmp_path / "model.pt", CLASSIFIER, activation_fn=said, pooler_activation_fn="tanh"))
    mlp = model.spec.encoder.layer(0).mlp
    assert (mlp.activation, mlp.size) == (activation, 10)


@pytest.mark.filterwarnings("ignore:.*there is no tokenizer:UserWarning")
@pytest.mark.parametrize(
    ("head", "options", "message"),
    [
        (CLASSIFIER, {"pooler_activation_fn": "relu"}, "pooler_activation_fn 'relu' is not supported"),
        ("encoder.lm_head", {"activation_fn": "gelu_accurate"}, "activation_fn 'gelu_accurate' is not supported with lm_head"),
        (CLASSIFIER, {"activation_fn": "linear"}, "'linear'"),
        (CLASSIFIER, {"encoder_attention_heads": None}, "lack encoder_attention_heads"),
        (CLASSIFIER, {"encoder_ffn_embed_dim": 8}, "intermediate"),
    ],
)
def test_what_fairseq_had_and_a_folder_has_not(head: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    told = refusal(import_model, fairseq(tmp_path / "model.pt", head, **options))
    assert told.startswith(f"{tmp_path / 'model.pt'}: ")
    assert message in told


def electra(hidden: int) -> dict[str, np.ndarray]:
    """An ELECTRA of one tiny layer, its discriminator alone, as TensorFlow names it."""
    layer, made = "electra/encoder/layer_0", {}
    dense = {f"attention/self/{one}": (hidden, hidden) for one in ("query", "key", "value")}
    dense |= {"attention/output/dense": (hidden, hidden), "intermediate/dense": (hidden, 5), "output/dense": (5, hidden)}
    for name, shape in dense.items():
        made |= {f"{layer}/{name}/kernel": np.zeros(shape), f"{layer}/{name}/bias": np.zeros(shape[1])}
    for name in (f"{layer}/attention/output", f"{layer}/output", "electra/embeddings"):
        made |= {f"{name}/LayerNorm/gamma": np.ones(hidden), f"{name}/LayerNorm/beta": np.zeros(hidden)}
    for name, rows in (("word", 7), ("position", 6), ("token_type", 2)):
        made[f"electra/embeddings/{name}_embeddings"] = np.zeros((rows, hidden))
    return {name: array.astype(np.float16) for name, array in made.items()}


def test_the_heads_of_an_electra_are_guessed_for_its_releases_only(tmp_path: Path) -> None:
    writer.write(tmp_path / "small" / "m", electra(256))
    mixer = import_model(tmp_path / "small").spec.encoder.layer(0).mixer
    assert getattr(mixer, "heads", None) == 4
    writer.write(tmp_path / "own" / "m", electra(24))
    assert "24 is no released hidden size" in refusal(import_model, tmp_path / "own")
    config = {"vocab_size": 7, "embedding_size": 24, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3}
    config |= {"intermediate_size": 5, "max_position_embeddings": 6, "type_vocab_size": 2}
    (tmp_path / "own" / "electra_config.json").write_text(json.dumps(config))
    mixer = import_model(tmp_path / "own").spec.encoder.layer(0).mixer
    assert getattr(mixer, "heads", None) == 3


def test_a_part_that_is_not_there(tmp_path: Path) -> None:
    writer.write(tmp_path / "m", electra(8))
    told = refusal(lambda: import_model(tmp_path, part="generator"))
    assert told.startswith(f"{tmp_path / 'm'}: holds no generator")


def test_an_electra_without_its_words(tmp_path: Path) -> None:
    tensors = electra(8)
    del tensors["electra/embeddings/word_embeddings"]
    writer.write(tmp_path / "m", tensors)
    assert "no matrix electra.embeddings.word_embeddings.weight" in refusal(import_model, tmp_path)


@pytest.mark.filterwarnings("ignore:.*there is no tokenizer:UserWarning")
def test_the_path_of_an_import_is_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix or a file that has gone since looks like a repository's id, in the card as its base model."""
    monkeypatch.chdir(tmp_path)
    writer.write(Path("models/model.ckpt"), electra(256))
    fairseq(Path("models/model.pt"), CLASSIFIER)
    for source in ("models/model.ckpt", "models/model.pt"):
        model = import_model(source)
        Path("models").rename("gone")
        card = (model.save(tmp_path / Path(source).suffix) / "README.md").read_text()
        Path("gone").rename("models")
        assert "base_model" not in card
        assert not Path(model.name).is_relative_to("models")
