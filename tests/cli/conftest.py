"""A tiny model folder and a way to run the command line in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.builders import randomise

from bothways.cli import main
from bothways.data.tokenizer_training import WordPiece, train_tokenizer
from bothways.families import FAMILIES
from bothways.families.bert import bert, masked_lm_head
from bothways.families.family import Heads, Spec
from bothways.model.model import Model

WORDS = "the cat sat on a mat and the dog ran under a tree while fish swim in the sea"
LONGEST = 16


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]
Refused = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        code = main([str(one) for one in arguments])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return command


@pytest.fixture
def refused(run: Run) -> Refused:
    """Runs a command that must be refused: exit code 1, nothing on stdout, one line on stderr, which is returned."""

    def command(*arguments: str | Path) -> str:
        ran = run(*arguments)
        assert ran.code == 1, ran
        assert ran.out == ""
        assert ran.err.startswith("error: ")
        assert ran.err.count("\n") == 1, ran.err
        return ran.err

    return command


def save(folder: Path, seed: int = 0, words: Sequence[str] = (WORDS,), size: int = 24) -> Path:
    """A random BERT with a tokenizer of these words."""
    tokenizer = train_tokenizer(WordPiece(vocab_size=200), words)
    encoder = bert(tokenizer.vocab_size, hidden_size=size, num_layers=2, heads=3, intermediate_size=20, max_length=LONGEST)
    family = next(family for family in FAMILIES if family.name == "bert")
    model = Model.create(family, Spec(encoder, Heads(masked_lm=masked_lm_head(encoder))), tokenizer)
    randomise(model, seed)
    return model.save(folder)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("cli") / "model")


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A fresh copy of the tiny model, to use or to damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))
