"""Damaged and crafted checkpoints of other programs are refused in a line; nothing of numpy's is called by one."""

from __future__ import annotations

import codecs
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bothways.model.composer import PLAIN
from bothways.model.weights import read_pickle


class Reduced:
    """Pickled as a call of anything."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def test_numpy_is_never_called_by_a_file(tmp_path: Path) -> None:
    """numpy makes an array of objects over any bytes, which are then pointers into memory: a crash, or worse."""
    fake = Reduced(codecs.encode, "A" * 8, "latin1")
    evil = Reduced(np.ndarray, (1,), Reduced(np.dtype, "O"), fake)
    torch.save({"state": {"model": {"x": Reduced(np.ndarray, evil)}}}, tmp_path / "a.pt")
    code = "import sys; from bothways.model.importing import import_model; import_model(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.pt")], capture_output=True, text=True, check=False)
    assert done.returncode == 1  # a segmentation fault is -11
    assert "InputError" in done.stderr
    for call in (Reduced(np.ndarray, (10**13,)), np.zeros(3), np.float32(1), np.random.RandomState(0).get_state()[1]):
        torch.save({"x": call}, tmp_path / "a.pt")
        assert not isinstance(read_pickle(tmp_path / "a.pt", PLAIN)["x"], np.ndarray | np.generic)
