"""Folders and texts that the tests of models share."""

from __future__ import annotations

import ast
import csv
import gzip
import json
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import references
from tests.builders import VOCAB
from tests.references import CASES
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors

import bothways
from bothways.data.tokenizer import bert_template
from bothways.model.model import Model

Edit = Callable[..., Path]


@pytest.fixture(scope="session")
def sentence_transformer() -> Callable[[Path], Any]:
    """Opens a folder with sentence-transformers, on the CPU."""
    from sentence_transformers import SentenceTransformer

    return lambda folder: SentenceTransformer(str(folder), device="cpu", local_files_only=True)


@pytest.fixture
def edited(minilm: Path, tmp_path: Path) -> Edit:
    """Makes a copy of all-MiniLM-L6-v2 with keys of its JSON files changed; None removes a key."""

    def edit(**files: dict[str, Any]) -> Path:
        folder = tmp_path / f"edited{len(list(tmp_path.iterdir()))}"
        for source in (path for path in minilm.rglob("*") if path.is_file()):
            target = folder / source.relative_to(minilm)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
        for name, changes in files.items():
            file = folder / f"{name.replace('__', '/')}.json"
            data = {**(json.loads(file.read_text()) if file.exists() else {}), **changes}
            file.unlink(missing_ok=True)
            file.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
        return folder

    return edit


@pytest.fixture(scope="session")
def docstrings() -> list[str]:
    """500 documentation strings of the standard library, of any length."""
    found: list[str] = []
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
        found += [text for node in nodes if (text := ast.get_docstring(node))]
    chosen = np.random.default_rng(0).choice(len(found), 500, replace=False)
    return [found[i] for i in sorted(chosen)]


@pytest.fixture(scope="session")
def sts_test(shared: Path) -> list[tuple[float, str, str]]:
    """The test set of STS-B: gold score and two sentences."""
    with (shared / "data" / "glue" / "STS-B" / "original" / "sts-test.csv").open(encoding="utf-8", newline="") as file:
        return [(float(row[4]), row[5], row[6]) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


@pytest.fixture(scope="session")
def real_texts(shared: Path, docstrings: list[str], sts_test: list[tuple[float, str, str]]) -> list[str]:
    """1,000 real texts, from a few tokens to more than a model reads."""
    folder = shared / "data" / "retrieval" / "scifact"
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        papers = [json.loads(line) for line, _ in zip(file, range(100), strict=False)]
    with (folder / "queries.jsonl").open(encoding="utf-8") as file:
        queries = [json.loads(line)["text"] for line, _ in zip(file, range(300), strict=False)]
    sentences = [text for _, *pair in sts_test[:50] for text in pair]
    texts = [*docstrings, *(f"{one['title']} {one['text']}" for one in papers), *queries, *sentences]
    assert len(texts) == 1000
    return texts


WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "of", "and"),
]


def word_tokenizer() -> Backend:
    """Whole words, BERT's special tokens around."""
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(WORDS[:5])
    template: processors.TemplateProcessing = bert_template(WORDS.index("[CLS]"), WORDS.index("[SEP]"))
    backend.post_processor = template
    assert len(WORDS) <= VOCAB
    return backend


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """Loads a tiny random model by the name of its case, with a tokenizer of a few words."""
    root = tmp_path_factory.mktemp("tiny")

    def load(name: str) -> Model:
        folder = root / name
        if not folder.exists():
            references.save(references.build(next(case for case in CASES if str(case) == name)), folder)
            word_tokenizer().save(str(folder / "tokenizer.json"))
        return bothways.load(folder)

    return load
