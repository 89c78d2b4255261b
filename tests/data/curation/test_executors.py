"""The same recipe on Ray and on Slurm gives the documents, byte for byte, that processes of this machine give."""

from __future__ import annotations

import dataclasses
import os
import stat
import sys
from pathlib import Path

import pytest
from tests.data.curation.corpus import contents
from tests.data.curation.test_curate import recipe

from bothways.data.curation.recipe import Ray, Slurm
from bothways.data.curation.run import curate
from bothways.errors import InputError

pytest.importorskip("datatrove", reason="pip install 'bothways[data]'")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, in many places
def test_ray_gives_the_same_documents(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'bothways[ray]'")
    made = recipe(tmp_path)
    curate(made, tmp_path / "local")
    curate(dataclasses.replace(made, executor=Ray(workers=2, memory_gb=0.2)), tmp_path / "ray")
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    broken = tmp_path / "a/a.jsonl"
    broken.write_text(broken.read_text() + "{broken\n")
    with pytest.raises(InputError, match=r"a\.jsonl:34: not valid JSON"):
        curate(dataclasses.replace(made, executor=Ray(workers=2, memory_gb=0.2)), tmp_path / "fault")


# What Slurm does, on one machine: a job array is run at once, task by task; a job is announced by its number
SBATCH = """#!{python}
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
first, last = re.search(r"--array=(\\d+)-(\\d+)", script).groups()
given = [one for a in sys.argv if a.startswith("--export") for one in a.partition("=")[2].split(",")]
exports = dict(one.split("=") for one in given if "=" in one)
log = open("{log}", "a")
for task in range(int(first), int(last) + 1):
    env = os.environ | exports | {{"SLURM_ARRAY_TASK_ID": str(task), "SLURM_NODELIST": "here", "SLURM_JOB_ID": "1"}}
    subprocess.run(["bash", "-c", script], env=env, check=True, stdout=log, stderr=log)
print("Submitted batch job 17")
"""
SRUN = """#!/bin/bash
while [ "$1" != launch_pickled_pipeline ]; do shift; done
exec {python} -c "from datatrove.tools.launch_pickled_pipeline import main; main()" "$2"
"""


@pytest.mark.slow
def test_slurm_gives_the_same_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With commands in the place of Slurm's that run what they are given here."""
    commands = tmp_path / "bin"
    commands.mkdir()
    scripts = {
        "sbatch": SBATCH.format(python=sys.executable, log=tmp_path / "log"),
        "srun": SRUN.format(python=sys.executable),
        "scontrol": "#!/bin/bash\necho here\n",
        "merge_stats": "#!/bin/bash\n",
    }
    for name, text in scripts.items():
        (commands / name).write_text(text)
        (commands / name).chmod(stat.S_IRWXU)
    made = recipe(tmp_path)
    curate(made, tmp_path / "local")
    slurm = dataclasses.replace(made, executor=Slurm(partition="cpu"))
    monkeypatch.setenv("PATH", os.defpath)
    with pytest.raises(InputError, match="sbatch: no such command"):
        curate(slurm, tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.defpath}")
    said: list[str] = []
    assert curate(slurm, tmp_path / "slurm", said.append) is None
    assert "submitted" in said[-1], (tmp_path / "log").read_text()
    done = curate(slurm, tmp_path / "slurm")
    assert done is not None
    assert contents(tmp_path / "slurm") == contents(tmp_path / "local")
