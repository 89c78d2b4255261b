"""Help is light, whole, and shows commands that exist; the exit codes say what went wrong."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import get_args

import pytest
import typer
from tests.cli.conftest import Run

import bothways
from bothways.cli import main, options
from bothways.cli.app import build
from bothways.cli.output import explained, progress
from bothways.data import source
from bothways.errors import InputError, MissingExtraError
from bothways.model import overflow
from bothways.retrieval import index

VERBS = [
    *("demo", "pretrain", "finetune", "distil", "recipes", "launch", "plan", "ladder", "compare", "embed", "fill", "index"),
    *("search", "classify", "code build", "code repair"),
    *("evaluate", "curate", "domain train", "tokenizer train", "tokenizer report", "tokenizer transplant", "tokenize", "lexicon"),
    *("convert", "info", "verify"),
]
# pydantic is not among them: typer itself imports it, in a tenth of a second
HEAVY = "torch numpy pyarrow tokenizers transformers safetensors huggingface_hub httpx2 lancedb matplotlib rich"


@pytest.mark.parametrize("verb", ["", "embed", "evaluate", "index", "tokenizer train", "verify"])
def test_help_imports_nothing_heavy(verb: str) -> None:
    code = (
        "import sys; from bothways.cli import main; code = main(sys.argv[1:]);"
        f"print('heavy:', *sorted(set({HEAVY.split()}) & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *verb.split(), "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: {' '.join(['bothways', *verb.split()])} ")
    assert done.stdout.splitlines()[-1] == "heavy:"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_examples_that_are_commands(run: Run, verb: str) -> None:
    """Each example parses: its verb and options exist and its values are of their types."""
    ran = run(*verb.split(), "--help")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.partition("Examples:\n")[2].splitlines()
    assert lines
    command = typer.main.get_command(build())
    for line in lines:
        program, *words = shlex.split(line)
        assert (program, words[: len(verb.split())]) == ("bothways", verb.split())
        context, rest = command.make_context("bothways", words), words  # parses the program's own options
        here = command
        for _ in verb.split():
            name, here, rest = here.resolve_command(context, rest)  # type: ignore[attr-defined]
            context = here.make_context(name, list(rest), parent=context)


def test_choices_are_those_of_the_rooms() -> None:
    assert get_args(options.Split) == get_args(source.Split)
    assert get_args(options.Overflow) == get_args(overflow.Overflow)
    assert get_args(options.Method) == get_args(index.Method)


def test_version(run: Run) -> None:
    assert run("--version").out == f"{bothways.__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        "",
        "embedd",
        "embed model",
        "embed model texts.txt --out vectors.csv",
        "embed model texts.txt --out vectors.npy --overflow ignore",
        "embed model texts.txt --out vectors.npy --prompt x --role query",
        "fill model text --top 0",
        "search folder query --method sparse",
        "tokenizer train texts --out folder --vocab-size none",
        "convert model out --dtype int8",
        "info model --no-such-option",
        "verify model",
        "verify model other --api rest",
    ],
)
def test_a_wrong_command_is_2(run: Run, command: str) -> None:
    ran = run(*command.split())
    assert ran.code == 2, ran
    assert "Usage: bothways" in ran.out + ran.err
    assert "Traceback" not in ran.err


def test_a_real_process() -> None:
    """The exit codes and streams of the program itself."""
    command = [sys.executable, "-m", "bothways.cli"]
    done = subprocess.run([*command, "info", "./nowhere"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: ./nowhere: no such folder\n")
    assert subprocess.run([*command, "info"], capture_output=True).returncode == 2


def test_errors_of_ours_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("bothways.model.folder.read_weights", broken)
    monkeypatch.setattr("bothways.load", broken, raising=False)
    with pytest.raises(ZeroDivisionError):
        main(["info", "model"])


def test_what_is_explained() -> None:
    from bothways.data.tokenizer_training import WordPiece

    assert explained(InputError("a\nb")) == "a b"
    assert explained(MissingExtraError("the index", "index")) == str(MissingExtraError("the index", "index"))
    assert explained(OSError(28, "No space left on device", "a.txt")) == "a.txt: No space left on device"
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        WordPiece(vocab_size=0)
    assert explained(caught.value) == "WordPiece: vocab_size: input should be greater than 0"
    assert explained(ValueError("a fault of ours")) is None


def test_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for terminal in (True, False):
        with progress(4, "tokens", terminal) as advance:
            advance(3, 30)
            advance(1, 12)
        out, err = capsys.readouterr()
        assert out == ""
        assert ("4/4" in err) == ("tokens/s" in err) == ("left" in err) == terminal
    with progress(None, "tokens", terminal=True) as advance:
        advance(3, 30)
        advance(4, 12)
    err = capsys.readouterr().err
    assert " 7 " in err
    assert "tokens/s" in err
    assert "/7" not in err
    assert "left" not in err


@pytest.mark.parametrize(("given", "kept"), [(None, "1000"), ("7", "7")])
def test_waiting_threads_sleep_unless_told_otherwise(given: str | None, kept: str) -> None:
    """Set before torch is loaded, which reads it once."""
    code = (
        "import os, sys; from bothways.cli import main; main(['--version']); "
        "print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment |= {} if given is None else {"GOMP_SPINCOUNT": given}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == f"{kept} False"
