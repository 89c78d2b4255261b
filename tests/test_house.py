"""The house: what the package shows, what importing it costs, and the laws that tools enforce."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import bothways

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src/bothways"


def test_the_public_surface() -> None:
    assert sorted(bothways.__all__) == ["Encoder", "EncoderConfig", "Model", "__version__", "load"]
    assert {name: getattr(bothways, name).__module__ for name in bothways.__all__ if name != "__version__"} == {
        "Encoder": "bothways.encoder.encoder",
        "EncoderConfig": "bothways.encoder.config",
        "Model": "bothways.model.model",
        "load": "bothways.model.folder",
    }
    assert set(bothways.__all__) <= set(dir(bothways))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'bothways' has no attribute 'lod'"):
        _ = bothways.lod  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", ["bothways", "bothways.cli"])
def test_importing_is_light(module: str) -> None:
    heavy = "torch numpy pyarrow pydantic tokenizers huggingface_hub safetensors lancedb matplotlib transformers"
    code = f"import sys, {module}; print(*sorted(set({heavy.split()}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_version_is_the_newest_of_the_changelog() -> None:
    newest = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest.group(1) == bothways.__version__


def test_every_module_is_documented_and_has_postponed_annotations() -> None:
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), f"{path}: no docstring"
        if any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in tree.body):
            assert "from __future__ import annotations" in path.read_text(), path


def test_data_knows_no_network() -> None:
    """`data` never imports torch.nn. (Import-linter cannot look inside a package from outside.)"""
    for path in (SOURCE / "data").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"\btorch\.nn\b|from torch import .*\bnn\b", text), path


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A copy of the sources and of the rules, to break."""
    shutil.copytree(SOURCE, tmp_path / "src/bothways", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def _lint_imports(folder: Path) -> tuple[int, str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(folder / "src"), "PYTHONUTF8": "1"}, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def test_the_rooms_keep_their_order(planted: Path) -> None:
    code, said = _lint_imports(planted)
    assert code == 0, said


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("ops", "import bothways.layers.mlp"),  # upwards
        ("data", "import bothways.ops.rotary"),  # sideways
        ("training", "from bothways.objectives import masked_lm"),  # sideways
        ("config.py", "import bothways.errors, bothways.ragged"),  # upwards, a file
        ("ops", "def late():\n    import transformers"),  # a reference implementation, even inside a function
        ("stray", "'a room that nobody planned'"),
    ],
)
def test_a_planted_fault_is_caught(planted: Path, room: str, line: str) -> None:
    path = planted / "src/bothways" / room
    path = path if path.suffix else path / "__init__.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    code, said = _lint_imports(planted)
    assert code == 1, said


def test_every_optional_dependency_is_imported_late() -> None:
    """A module imports with the core dependencies alone: what an extra brings is imported inside functions."""
    optional = {"lancedb", "bm25s", "matplotlib", "jinja2", "sklearn", "scipy", "pytrec_eval", "charset_normalizer"}
    optional |= {"datatrove", "lingua", "rensa", "spacy", "trafilatura", "warcio", "ray", "loguru", "multiprocess"}
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & optional, path


def test_make_does_what_the_documents_say() -> None:
    for target in ("demo", "test", "test-slow", "lint", "check", "bench", "extras", "help"):
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    done = subprocess.run(["make", "--dry-run", "VENV=nowhere", "demo"], cwd=ROOT, capture_output=True, text=True)
    steps = [step for step in done.stdout.splitlines() if "pip" in step]
    assert "torch" in steps[0], "torch goes first"
    assert ".[all]" in steps[1]
    assert "dev" not in steps[1]


def test_the_package_is_typed_and_licensed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (SOURCE / "py.typed").exists()
    assert project["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


def test_all_is_every_extra_but_the_developers() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.fullmatch(r"bothways\[(.*)\]", extras["all"][0])
    assert named is not None
    assert sorted(named.group(1).split(",")) == sorted(set(extras) - {"all", "dev"})


def test_the_command_exists() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["bothways"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
