"""The card of a folder: true, read by the hub's library, and left alone once it is somebody's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import bothways
from bothways.errors import InputError
from bothways.model.card import add_line
from bothways.model.model import Model
from bothways.model.settings import EmbeddingSettings

Tiny = Callable[[str], Model]
MINE = "---\nlicense: mit\n---\n\n# My model\n"


def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def data(folder: Path) -> dict[str, Any]:
    return ModelCard.load(folder / "README.md").data.to_dict()


@pytest.mark.parametrize(
    ("name", "task", "cls"),
    [
        ("bert-masked_lm", "fill-mask", "AutoModelForMaskedLM"),
        ("roberta-classifier", "text-classification", "AutoModelForSequenceClassification"),
        ("modernbert-bare", "feature-extraction", "AutoModel"),
    ],
)
def test_what_a_card_says(name: str, task: str, cls: str, tiny: Tiny, tmp_path: Path) -> None:
    model = tiny(name)
    folder = model.save(tmp_path / "out")
    assert data(folder)["pipeline_tag"] == task
    assert data(folder)["library_name"] == "transformers"
    assert data(folder)["tags"][:2] == ["bothways", model.family.name]
    assert not {"license", "base_model", "language"} & set(data(folder))  # not known, so not said
    text = card(folder)
    assert f"| parameters | {model.parameters_count:,} |" in text
    assert f"model = {cls}.from_pretrained(" in text
    assert "SentenceTransformer" not in text


@pytest.mark.parametrize("name", ["bert-masked_lm", "roberta-classifier", "modernbert-bare"])
def test_the_code_in_a_card_runs(name: str, tiny: Tiny, tmp_path: Path) -> None:
    model = tiny(name)
    model.settings = EmbeddingSettings(declared=True, normalize=True)
    folder = model.save(tmp_path / "out")
    blocks = re.findall(r"```python\n(.*?)```", card(folder), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        names: dict[str, Any] = {}
        exec(block.replace('"path/to/this/folder"', repr(str(folder))), names)
        assert names["model"] is not None
    assert data(folder)["library_name"] == "sentence-transformers"
    assert data(folder)["pipeline_tag"] == "sentence-similarity"
    model.settings = EmbeddingSettings()


def test_a_family_that_transformers_lacks(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("neobert-bare")
    assert "transformers" not in card(model.save(tmp_path / "fresh")).split("---")[2]
    model.published["auto_map"] = {"AutoModel": "someone/NeoBERT--model.NeoBERT"}
    assert "trust_remote_code=True" in card(model.save(tmp_path / "coded"))
    del model.published["auto_map"]


def test_one_output_ranks_unless_it_is_a_regression(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("bert-classifier")
    assert model.spec.heads.classifier is not None
    heads = replace(model.spec.heads, classifier=replace(model.spec.heads.classifier, labels=1))
    ranker = model.with_heads(heads, labels=("score",))
    assert data(ranker.save(tmp_path / "a"))["pipeline_tag"] == "text-ranking"
    measured = model.with_heads(heads, labels=("score",), problem="regression")
    assert data(measured.save(tmp_path / "b"))["pipeline_tag"] == "text-classification"


def test_what_the_source_says_is_carried_on(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("bert-masked_lm").save(tmp_path / "source")
    said = "---\nlicense: apache-2.0\nlanguage:\n- en\n- de\nbase_model: google-bert/bert-base-cased\n---\n# Theirs\n"
    (folder / "README.md").write_text(said)
    found = data(bothways.load(folder).save(tmp_path / "out"))
    assert (found["license"], found["language"]) == ("apache-2.0", ["en", "de"])
    assert found["base_model"] == "google-bert/bert-base-cased"
    for damaged in (b"---\nlicense: [\n---\n", b"\xff\xfe", b"---\n- a\n---\n", b""):
        (folder / "README.md").write_bytes(damaged)
        assert "license" not in data(bothways.load(folder).save(tmp_path / f"out{len(damaged)}"))


def test_a_repository_is_the_base_model(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("bert-masked_lm")
    before, model.name = model.name, "someone/some-model"
    assert data(model.save(tmp_path / "out"))["base_model"] == "someone/some-model"
    model.name = before


def test_an_unchanged_card_is_written_anew(tiny: Tiny, tmp_path: Path) -> None:
    first, second = tiny("bert-masked_lm"), tiny("bert-bare")
    folder = first.save(tmp_path / "model")
    text = card(folder)
    first.save(folder)
    assert card(folder) == text
    (folder / "README.md").write_bytes(text.replace("\n", "\r\n").encode())  # as a checkout on Windows has it
    second.save(folder)
    assert card(folder) == card(second.save(tmp_path / "other")) != text


@pytest.mark.parametrize("where", ["front matter", "body", "end", "whole"])
def test_a_card_that_somebody_changed_is_theirs(where: str, tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("bert-masked_lm")
    folder = model.save(tmp_path / "model")
    text = card(folder)
    changed = {
        "front matter": text.replace("---\nlib", "---\nlicense: mit\nlib", 1),
        "body": text.replace("# A bert encoder", "# Mine"),
        "end": text + "\nMine.\n",
        "whole": MINE,
    }[where]
    assert changed != text
    (folder / "README.md").write_text(changed)
    model.save(folder)
    tiny("bert-bare").save(folder)
    assert card(folder) == changed


def test_lines_between_marks(tiny: Tiny, tmp_path: Path) -> None:
    """A line is replaced by its successor; nothing else changes, and the card is still ours."""
    model = tiny("bert-masked_lm")
    folder = model.save(tmp_path / "model")
    text = card(folder)
    add_line(folder, "certificate", "checked on\nMonday")
    add_line(folder, "other", "another")
    once = card(folder)
    assert "\nchecked on Monday\n" in once
    add_line(folder, "certificate", r"checked on Tuesday \1")
    add_line(folder, "certificate", r"checked on Tuesday \1")
    twice = card(folder)
    assert r"checked on Tuesday \1" in twice
    assert "Monday" not in twice
    assert twice.replace(r"Tuesday \1", "Monday") == once
    assert data(folder) == ModelCard(text).data.to_dict()
    model.save(folder)  # what the lines said was said of the weights before
    assert card(folder) == text
    with pytest.raises(InputError, match="letters, digits and dashes"):
        add_line(folder, "a b", "text")


def test_a_line_in_somebodys_card(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("bert-masked_lm")
    folder = model.save(tmp_path / "model")
    (folder / "README.md").write_text(MINE)
    add_line(folder, "certificate", "checked")
    add_line(folder, "certificate", "checked again")
    assert (
        card(folder)
        == MINE.rstrip("\n") + "\n\n<!-- bothways certificate -->\nchecked again\n<!-- end of bothways certificate -->\n"
    )
    kept = card(folder)
    model.save(folder)
    assert card(folder) == kept
    (folder / "README.md").unlink()
    add_line(folder, "certificate", "checked")
    assert not (folder / "README.md").exists()
    (folder / "README.md").write_text("")
    add_line(folder, "certificate", "checked")
    model.save(folder)  # a card of nothing but such lines is nobody's
    assert "# A bert encoder" in card(folder)


def test_labels_and_sizes(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("roberta-classifier")
    folder = model.save(tmp_path / "out")
    assert f"| classes | {', '.join(model.spec.labels)} |" in card(folder)
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 5
    assert "| layers | 5 |" in card(folder)
