"""What `transformers` computes of a published checkpoint, and how far ours lies from it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import gap
from torch import Tensor

import bothways
from bothways.layers.heads import pool
from bothways.model.model import Model
from bothways.ragged import Batch

# our heads by the names that outputs of theirs have
HEADS = {
    "prediction_logits": "masked_lm",
    "seq_relationship_logits": "next_sentence",
    "sop_logits": "sentence_order",
    "pooler_output": "pooler",
}


def folder_of(package: str, version: str, weights: str, parent: str = "") -> Path:
    """Where an installed package has its checkpoint; without the package, the test is skipped."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"no checkpoint of {package} {version}: make real")
    found = (file for file in files if file.name == weights and (not parent or file.parent.name == parent))
    return Path(str(next(found).locate())).parent


def furthest(model: Model, folder: Path, classes: Iterable[Any], rows: Sequence[Sequence[int]]) -> dict[str, float]:
    """The largest relative difference of each layer (0 is the embedding) and of each head, over the rows and the classes.

    The rows are packed on our side, and one by one on theirs. Whatever a class computes, we must have.
    """
    found: dict[str, float] = {}
    for cls in classes:
        theirs, report = cls.from_pretrained(folder, output_loading_info=True)
        theirs = theirs.eval()
        assert not report["missing_keys"] or set(report["missing_keys"]) <= set(theirs._tied_weights_keys or ()), report
        for ours, row in zip(_ours(model, rows), rows, strict=True):
            with torch.no_grad():
                for name, expected in _theirs(theirs, row, "classifier" if "classifier" in model.heads else "masked_lm"):
                    found[name] = max(found.get(name, 0.0), gap(ours[name], expected[0]))
    return found


def _theirs(model: Any, row: Sequence[int], logits: str) -> Iterator[tuple[str, Tensor]]:
    output = model(torch.tensor([row]), output_hidden_states=True)
    for name, value in output.items():
        if name == "hidden_states":
            yield from ((f"layer.{i}", hidden) for i, hidden in enumerate(value))
        elif isinstance(value, Tensor) and name != "last_hidden_state":
            yield HEADS.get(name, logits), value


def _ours(model: Model, rows: Sequence[Sequence[int]]) -> list[dict[str, Tensor]]:
    """All that a model computes of packed rows, one by one."""
    with torch.no_grad():
        encoded = model.encoder(Batch.of(rows), keep=True)
        tokens = {f"layer.{i}": hidden for i, hidden in enumerate(encoded.layers)}
        sequences: dict[str, Tensor] = {}
        for name, head in model.heads.items():
            match name:
                case "masked_lm":
                    tokens[name] = model.masked_lm(encoded.hidden)
                case "pooler":
                    sequences[name] = head(pool("cls", encoded.hidden, encoded.ragged))
                case _:
                    sequences[name] = head(encoded.hidden, encoded.ragged)
        split = {name: values.split([len(row) for row in rows]) for name, values in tokens.items()}
    return [{name: values[i] for name, values in {**split, **sequences}.items()} for i in range(len(rows))]


def assert_both_ways(model: Model, folder: Path, saved: Path, classes: Sequence[Any], rows: Sequence[Sequence[int]]) -> None:
    """Ours equals theirs on the published folder, on the one we write, and so does the reloaded model."""
    saved = model.save(saved)
    for one, other in ((model, folder), (model, saved), (bothways.load(saved, strict=True), saved)):
        found = furthest(one, other, classes, rows)
        assert {name for name in found if name.startswith("layer.")} == {f"layer.{i}" for i in range(len(one.encoder.stack) + 1)}
        assert set(one.heads) <= set(found)
        assert max(found.values()) <= 1e-5, found
