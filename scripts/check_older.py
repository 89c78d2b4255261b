"""Does an older `transformers` read the folders that Bothways writes?

Of each tiny published architecture that the tests compare, a model of ours with random weights is saved, without a config of
theirs to lean on, by the environment at hand; an older `transformers` in a folder of its own then opens it in another process,
and its last hidden states and the outputs of its heads are compared with ours. Run it with `make older`; it takes a minute
or two, and the registry.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests import references  # noqa: E402
from tests.builders import gap, randomise  # noqa: E402
from tests.parity.test_parity import TOLERANCE, batch_of, run, texts  # noqa: E402
from tests.references import CASES, REFERENCES, Case  # noqa: E402

import bothways  # noqa: E402
from bothways.model.model import Model  # noqa: E402

OLDER = "transformers==4.57.*"
# what the older version cannot do, by family or case, and why
_CAUSAL = "its decoders are causal whatever is_causal says"
_KINDS = "it has one scaling for all layers, and local layers but each n-th"
LOST: dict[str, str] = {
    "nomic_bert": "since version 5",
    "eurobert": "since version 5",
    **{str(case): _CAUSAL for case in CASES if case.changes.get("is_causal") is False},
    **{f"modernbert-{name}": _KINDS for name in ("masked_lm-types-thetas", "bare-scaled", "bare-llama3")},
}


def write(folder: Path) -> Iterator[Case]:
    """A folder a case, with what our model computes of the case's texts."""
    for case in CASES:
        if REFERENCES[case.family].classes:
            continue  # code that transformers never had
        pattern = bothways.load(references.save(references.build(case), folder / "theirs" / str(case)))
        model = Model.create(pattern.family, pattern.spec)
        randomise(model)
        model.save(folder / str(case))
        with torch.no_grad():
            torch.save(run(model, batch_of(case)), folder / str(case) / "expected.pt")
        yield case


def read(folder: Path) -> Iterator[tuple[Case, float | str]]:
    """How far the `transformers` at hand is from ours, or why it does not open the folder."""
    import transformers

    print(f"transformers {transformers.__version__}")
    for case in CASES:
        if (folder / str(case)).is_dir():
            yield case, _distance(case, folder / str(case))


def _distance(case: Case, folder: Path) -> float | str:
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(folder)
    except ValueError as error:
        return f"not there: {str(error).splitlines()[0][:100]}"
    expected: dict[str, Any] = torch.load(folder / "expected.pt", weights_only=True)
    try:
        with torch.no_grad():
            found = references.run(case, references.reload(case, folder), *texts(case))
    except Exception as error:  # whatever an older version makes of a folder is what we are here to learn
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
    names = [name for name in expected if not name.startswith("layer.")]
    return max(gap(expected[name], found[name]) for name in names)


def report(folder: Path) -> bool:
    """Print a line a family and kind of outcome; whether all is equal but what cannot be."""
    outcomes: dict[tuple[str, str], list[float]] = defaultdict(list)
    good = True
    for case, distance in read(folder):
        equal = isinstance(distance, float) and distance <= TOLERANCE
        reason = LOST.get(str(case)) or LOST.get(case.family)
        if equal == (reason is not None):  # something is lost that should not be, or there again
            good = False
            print(f"  {case}: {distance}{f', but: {reason}' if reason else ''}")
            continue
        outcomes[case.family, reason or ""].append(distance if isinstance(distance, float) else float("nan"))
    for (family, reason), distances in outcomes.items():
        print(f"  {family}: {len(distances)} {f'not: {reason}' if reason else f'equal, {max(distances):.1e} at most'}")
    return good


def main() -> None:
    """Without arguments, install the older version; with a folder, it is there; `--read` is the other process."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if len(sys.argv) == 3 and sys.argv[1] == "--read":
        sys.exit(not report(Path(sys.argv[2])))
    with tempfile.TemporaryDirectory(prefix="bothways-older-") as root:
        folder, packages = Path(root, "models"), Path(root, "packages")
        if len(sys.argv) > 1:
            packages = Path(sys.argv[1])  # installed before
        else:
            install = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--target", str(packages), OLDER]
            done = subprocess.run(install, capture_output=True, text=True)
            if done.returncode:  # else pip has only warnings: beside what is installed here, an older version is a conflict
                sys.exit(done.stdout + done.stderr)
        print(f"wrote {sum(1 for _ in write(folder))} folders", flush=True)
        paths = {**os.environ, "PYTHONPATH": str(packages), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([sys.executable, __file__, "--read", str(folder)], env=paths)
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
