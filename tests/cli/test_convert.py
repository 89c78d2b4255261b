"""`bothways convert` on everything it reads, and on what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.cli.conftest import Refused, Run
from tests.model import bundle_writer
from tests.model.test_importing import OPTIONS, composer, google, roberta, saved

import bothways
from bothways.families import bert
from bothways.families.family import Spec
from bothways.model.model import Model

WEIGHT = "bert.encoder.layer.1.attention.self.query.weight"


def change(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = bothways.load(one).state_dict(), bothways.load(other).state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_shards(run: Run, refused: Refused, model: Path, tmp_path: Path) -> None:
    data = json.loads(run("convert", model, tmp_path / "out", "--max-shard-size", "20KB", "--json").out)
    assert len([name for name in data["files"] if name.startswith("model-0000")]) > 1
    assert "model.safetensors.index.json" in data["files"]
    assert_same(tmp_path / "out", model)
    assert_same(model, tmp_path / "out")
    for size in ("many", "0"):
        assert f"the largest size of a file of weights, '{size}', is no size" in refused(
            "convert", model, tmp_path / "no", "--max-shard-size", size
        )
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_tensorflow(run: Run, refused: Refused, tmp_path: Path) -> None:
    _, theirs = saved("bert-pretraining", tmp_path)
    words = [f"w{i}" for i in range(20)]
    source = google(tmp_path / "uncased", theirs, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])
    for i, named in enumerate((source, source / "bert_model.ckpt", source / "bert_model.ckpt.index")):
        ran = run("convert", named, tmp_path / f"out{i}", "--strict", *(["--from", "tf1"] if i else []))
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith(f"{tmp_path / f'out{i}'}: bert, ")
        assert_same(tmp_path / f"out{i}", theirs)
    data = source / "bert_model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:5000])
    assert "are damaged or cut short; fetch it again" in refused("convert", source, tmp_path / "out")
    bundle_writer.write(source / "bert_model.ckpt", {"resnet/kernel": np.zeros(3, np.float32)})
    assert "of no BERT, ELECTRA or ALBERT" in refused("convert", source, tmp_path / "out")
    assert f"{source}: no config.json" in (told := refused("info", source))
    assert "bothways convert" in told
    assert not (tmp_path / "out").exists()


def test_fairseq(run: Run, refused: Refused, tmp_path: Path) -> None:
    from tests.model.test_importing import fairseq

    _, theirs, weights = roberta("roberta-masked_lm", tmp_path)
    source = tmp_path / "roberta.base"
    source.mkdir()
    torch.save({"args": OPTIONS, "model": fairseq(weights)}, source / "model.pt")
    ran = run("convert", source, tmp_path / "out")
    assert (ran.code, ran.err.count("\n")) == (0, 1)
    assert "without dict.txt, encoder.json, vocab.bpe there is no tokenizer" in ran.err
    assert_same(tmp_path / "out", theirs)
    assert run("convert", source / "model.pt", tmp_path / "x", "--from", "fairseq", "--family", "xlm-roberta").out.startswith(
        f"{tmp_path / 'x'}: xlm-roberta, "
    )
    assert "refused: it holds more than tensors" in refused("convert", source, tmp_path / "y", "--from", "composer")


def test_composer(run: Run, tmp_path: Path) -> None:
    _, theirs = saved("bert-masked_lm", tmp_path)
    torch.save(composer(theirs), tmp_path / "latest.pt")
    ran = run("convert", tmp_path / "latest.pt", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    assert_same(tmp_path / "out", theirs)


def test_a_pickle_with_code(refused: Refused, tmp_path: Path) -> None:
    torch.save({"args": OPTIONS, "model": {}, "hook": print}, tmp_path / "model.pt")
    message = refused("convert", tmp_path / "model.pt", tmp_path / "out")
    assert f"{tmp_path / 'model.pt'}: refused: it holds more than tensors" in message
    assert "print" in message
    assert not (tmp_path / "out").exists()


def test_code_in_a_folder(run: Run, refused: Refused, model: Path, tmp_path: Path) -> None:
    """It is never run. Where the weights are those of a family we have, it is named; else that there is none."""
    change(model, model_type="my_bert", auto_map={"AutoModel": "modeling_my_bert.MyBert"})
    message = refused("convert", model, tmp_path / "out")
    assert f"{model / 'config.json'}: the family 'my_bert' is code in the folder (auto_map), which is never run" in message
    assert "of 'bert': if it computes the same, family='bert' (--family bert) reads it" in message
    assert run("convert", model, tmp_path / "named", "--family", "bert").code == 0
    assert "auto_map" not in json.loads((tmp_path / "named" / "config.json").read_text())
    tensors = load_file(model / "model.safetensors")
    save_file({f"strange.{name}": tensor for name, tensor in tensors.items()}, model / "model.safetensors")
    message = refused("convert", model, tmp_path / "out")
    assert "no supported family has weights of these names and shapes; supported: bert, " in message
    change(model, auto_map=None)
    assert "the family 'my_bert' is not supported; supported: bert, " in refused("convert", model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"hiden_size": 9}, ["--strict"], "keys that this family does not know: hiden_size"),
        ({"hidden_act": "mish"}, [], "hidden_act='mish' is not supported"),
        ({"model_type": "gpt2"}, [], "the family 'gpt2' is not supported"),
        ({"model_type": None}, [], "no model_type; say which family"),
        ({}, ["--family", "roberta"], "weights missing"),
        ({}, ["--family", "nonesuch"], "the family 'nonesuch' is not supported"),
    ],
    ids=str,
)
def test_what_no_family_reads(
    changes: dict[str, object], options: list[str], message: str, refused: Refused, model: Path, tmp_path: Path
) -> None:
    change(model, **changes)
    assert message in refused("convert", model, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_a_weight_that_no_rule_names(refused: Refused, model: Path, tmp_path: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    save_file({**tensors, "bert.adapter.weight": torch.zeros(2)}, model / "model.safetensors")
    assert "1 weight not known to this family: bert.adapter.weight" in refused("convert", model, tmp_path / "out")
    save_file({name: tensor for name, tensor in tensors.items() if name != WEIGHT}, model / "model.safetensors")
    assert f"1 weight missing: {WEIGHT}" in refused("convert", model, tmp_path / "out")


def test_what_a_family_cannot_say(refused: Refused, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded model always can be said in its own family; one that was changed need not."""
    from dataclasses import replace

    encoder = bert.bert(50, 24, 2, 3, 20, 16)
    layer = encoder.layer(0)
    windowed = replace(encoder, layers=(replace(layer, mixer=replace(layer.mixer, window=4)),))
    monkeypatch.setattr(bothways, "load", lambda *_, **__: Model.create(bert.FAMILY, Spec(encoder=windowed)))
    message = refused("convert", model, tmp_path / "out")
    assert "the family 'bert' cannot express this encoder's layers.0.mixer.window and" in message
    assert not (tmp_path / "out").exists()
