"""Do the dependencies hold, at their newest and at their lowest?

For each end of the declared ranges: resolve `.[all]` as the registry stands today, install just those versions into a
throwaway environment, import every module of the package with the core dependencies alone, then everything that the
extras bring, and run the fast tests. At the lower end, each version resolved must also be the bound that pyproject.toml
declares: a bound that no resolution can reach is not a bound.

Torch itself is resolved, but installed as the Makefile installs it: the CUDA builds are several GB. Run it with
`make extras`; it takes a quarter of an hour, or five minutes without the tests:

    python scripts/check_extras.py --imports
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent

# Run in the throwaway environment. Imports every module of the package, then, given extras, what their packages bring.
IMPORT_ALL = """
import importlib, importlib.metadata as metadata, pkgutil, sys
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
import bothways

def found(error):
    raise error

names = [m.name for m in pkgutil.walk_packages(bothways.__path__, "bothways.", onerror=found) if not m.name.endswith("__main__")]
for extra in sys.argv[1:]:
    wanted = {canonicalize_name(r.name) for r in map(Requirement, metadata.requires("bothways"))
              if r.marker and r.marker.evaluate({"extra": extra})}
    homes = metadata.packages_distributions().items()
    modules = {m for m, owners in homes if m.isidentifier() and wanted & {canonicalize_name(o) for o in owners}}
    assert modules, f"extra {extra} brings no module"
    names += sorted(modules)
for name in names:
    importlib.import_module(name)
brought = [name for name in names if not name.startswith("bothways")]
print(f"    imported {len(names)} modules", *brought)
"""


def run(*command: str | Path) -> str:
    """The command's output; a failure ends the script with what the command said."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(str(part) for part in command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def declared() -> tuple[dict[str, Requirement], list[str]]:
    """The direct requirements by name, and the extras, as pyproject.toml has them (without the developers' tools)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name not in ("dev", "all")}
    lines = project["dependencies"] + [line for extra in extras.values() for line in extra]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}, list(extras)


def resolve(end: str) -> dict[str, Version]:
    """The versions that `.[all]` resolves to, at one end (`highest` or `lowest-direct`) of its ranges."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    options = ["--resolution", end, "--python-version", python, "--no-header", "--no-annotate", "--quiet"]
    pins = run(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--extra", "all", *options)
    requirements = [Requirement(line) for line in pins.splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(r.name): Version(next(iter(r.specifier)).version) for r in requirements}


def check_bounds(direct: dict[str, Requirement], pins: dict[str, Version]) -> None:
    for name, requirement in direct.items():
        lowest = next(Version(part.version) for part in requirement.specifier if part.operator == ">=")
        if pins[name] != lowest:
            sys.exit(f"pyproject.toml: {requirement} cannot be had below {pins[name]}; raise the bound")


def try_out(pins: dict[str, Version], extras: list[str], tests: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="bothways-extras-") as folder:
        venv, versions = Path(folder, "venv"), Path(folder, "versions.txt")
        versions.write_text("".join(f"{name}=={version}\n" for name, version in pins.items() if name != "torch"))
        run("make", f"VENV={venv}", f"{venv}/.torch")
        python = venv / "bin/python"
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        for target, arguments in ((ROOT, []), (f"{ROOT}[all]", extras)):
            run(*pip, "--constraint", versions, target)
            print(run(python, "-c", IMPORT_ALL, *arguments), end="", flush=True)
        if not tests:
            return
        run(*pip, "--constraint", versions, f"{ROOT}[all,dev]")
        options = ["-q", "-m", "not slow", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning"]
        print("    " + run(python, "-m", "pytest", *options, "-n", "2", "--dist", "loadfile").splitlines()[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imports", action="store_true", help="without the tests")
    tests = not parser.parse_args().imports
    direct, extras = declared()
    for end in ("highest", "lowest-direct"):
        pins = resolve(end)
        print(f"{end}: resolved {len(pins)} packages: " + ", ".join(f"{name} {pins[name]}" for name in direct), flush=True)
        if end == "lowest-direct":
            check_bounds(direct, pins)
        try_out(pins, extras, tests)
    print("the newest and the lowest dependencies install, and everything imports" + (", and the tests pass" if tests else ""))


if __name__ == "__main__":
    main()
