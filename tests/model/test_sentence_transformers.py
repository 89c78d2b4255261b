"""Folders that we write open in sentence-transformers with equal numbers, whatever the settings."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bothways
from bothways.model.model import Model
from bothways.model.overflow import CutWarning
from bothways.model.settings import EmbeddingSettings

Tiny = Callable[[str], Model]
Open = Callable[[Path], Any]
TEXTS = ["the cat sat on a mat", "a dog", "", "the dog ran under the tree and the cat sat on the mat of the dog and"]
PROMPTS = {"query": "the dog ran ", "document": "a cat "}
TOLERANCE = 1e-5

CASES = [
    *(EmbeddingSettings(pooling="mean", normalize=unit, declared=True) for unit in (True, False)),
    *(EmbeddingSettings(pooling="cls", normalize=unit, declared=True) for unit in (True, False)),
    *(EmbeddingSettings(pooling="max", normalize=unit, declared=True) for unit in (True, False)),
    EmbeddingSettings(max_seq_length=6, declared=True),
    EmbeddingSettings(prompts=PROMPTS, normalize=True, declared=True),
    EmbeddingSettings(prompts=PROMPTS, default_prompt="query", declared=True),
    EmbeddingSettings(prompts=PROMPTS, include_prompt=False, max_seq_length=9, declared=True),
    EmbeddingSettings(similarity="dot", declared=True),
]  # fmt: skip


def apart(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one - other).max() / np.abs(other).max())


@pytest.mark.parametrize("settings", CASES, ids=lambda one: repr(one).split("(", 1)[1])
def test_equal_numbers(settings: EmbeddingSettings, tiny: Tiny, sentence_transformer: Open, tmp_path: Path) -> None:
    model = tiny("bert-bare")
    before, model.settings = model.settings, settings
    folder = model.save(tmp_path / "out")
    model.settings = before
    ours, theirs = bothways.load(folder), sentence_transformer(folder)
    assert ours.settings == EmbeddingSettings(**{**vars(settings), "max_seq_length": settings.max_seq_length or 256})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutWarning)
        for name in ("encode", "encode_query", "encode_document"):
            assert apart(getattr(ours, name)(TEXTS), getattr(theirs, name)(TEXTS)) <= TOLERANCE, name
    assert theirs.max_seq_length == ours.max_seq_length
    assert theirs.similarity_fn_name == settings.similarity
    theirs.save(str(tmp_path / "again"))  # and what they write of it means the same to us: the length with the tokenizer
    again = bothways.load(tmp_path / "again")
    assert replace(again.settings, max_seq_length=None) == replace(ours.settings, max_seq_length=None)
    assert again.max_seq_length == ours.max_seq_length


FAMILIES = [
    *("bert", "roberta", "xlm-roberta", "camembert", "albert", "distilbert", "electra", "mpnet", "deberta", "deberta-v2"),
    *("modernbert", "nomic_bert", "longformer", "eurobert"),
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_opens_in_both_with_equal_numbers(
    family: str, tiny: Tiny, sentence_transformer: Open, tmp_path: Path
) -> None:
    """In sentence-transformers by its own files, and in `transformers` by the tokenizer and the model of the folder."""
    from transformers import AutoModel, AutoTokenizer

    model = tiny(f"{family}-bare")
    before, model.settings = model.settings, EmbeddingSettings(pooling="mean", normalize=True, declared=True)
    folder = model.save(tmp_path / "out")
    model.settings = before
    ours, theirs = bothways.load(folder, strict=True), sentence_transformer(folder)
    assert apart(ours.encode(TEXTS), theirs.encode(TEXTS)) <= TOLERANCE
    tokenizer, bare = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for text, hidden in zip(TEXTS, ours.hidden_states(TEXTS), strict=True):
        with torch.no_grad():
            expected = bare(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert apart(hidden, expected.numpy()) <= TOLERANCE


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_both_schemas_of_pooling_in_one_file(pooling: Any, tiny: Tiny, tmp_path: Path) -> None:
    """Flags for the servers that ask for them, first; the one name of version 5.4 on; `include_prompt` last."""
    model = tiny("bert-bare")
    before, model.settings = model.settings, EmbeddingSettings(pooling=pooling, declared=True)
    folder = model.save(tmp_path / "out")
    model.settings = before
    file = folder / "1_Pooling" / "config.json"
    data = json.loads(file.read_text())
    kinds = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    flags = [f"pooling_mode_{kind}" for kind in kinds]
    assert list(data) == ["word_embedding_dimension", *flags, "embedding_dimension", "pooling_mode", "include_prompt"]
    assert {flag for flag in flags if data[flag]} == {next(flag for flag in flags if pooling in flag.split("_"))}
    assert (data["pooling_mode"], data["word_embedding_dimension"], data["embedding_dimension"]) == (pooling, 24, 24)
    for left_out in (flags, ["pooling_mode", "embedding_dimension"]):
        file.write_text(json.dumps({key: value for key, value in data.items() if key not in left_out}))
        assert bothways.load(folder).settings.pooling == pooling


def test_the_names_of_the_steps_are_those_every_version_reads(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("bert-bare")
    before, model.settings = model.settings, EmbeddingSettings(normalize=True, declared=True)
    folder = model.save(tmp_path / "out")
    model.settings = before
    steps = json.loads((folder / "modules.json").read_text())
    kinds = ("Transformer", "Pooling", "Normalize")
    assert [step["type"] for step in steps] == [f"sentence_transformers.models.{kind}" for kind in kinds]
    assert [step["path"] for step in steps] == ["", "1_Pooling", "2_Normalize"]
    assert [(step["idx"], step["name"]) for step in steps] == [(0, "0"), (1, "1"), (2, "2")]
