"""Every optimizer in the loop: it learns, and a run that was stopped ends with the same bits."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from bothways.training import log
from bothways.training.checkpoint import OPTIMIZER, WEIGHTS, latest
from bothways.training.interrupt import Interrupted
from bothways.training.loop import train
from bothways.training.optimizer import AdamW, BertAdam, Lamb, Muon, Optimizer, StableAdamW
from bothways.training.schedule import Fraction, Linear, Steps
from bothways.training.settings import TrainingConfig

from .small import Small, TextStream

OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": AdamW(lr=0.01),
    "stable_adamw": StableAdamW(lr=0.01, weight_decay=1e-3, fully_decoupled=True),
    "lamb": Lamb(lr=0.02),
    "bert_adam": BertAdam(lr=0.005),
    "muon": Muon(lr=0.02, rest=AdamW(lr=0.01), momentum_warmup=6, weight_decay=0.1),
    "nor_muon": Muon(lr=0.02, rest=AdamW(lr=0.01), weight_decay=0.1, scale="rms", normalised=0.95, cautious=True),
}


def run(folder: Path, optimizer: Optimizer, seed: int = 3, **options: Any) -> None:
    settings = TrainingConfig(
        optimizer=optimizer, schedule=Linear(warmup=Fraction(of=0.2)), budget=Steps(count=10), log_every=1, accumulate=2
    )
    train(Small(seed=seed), TextStream, settings, folder, device="cpu", run="{}", **options)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_stopped_run_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    def stop(step: int) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    run(tmp_path / "straight", OPTIMIZERS[name])
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", OPTIMIZERS[name], after_step=stop)
    torch.manual_seed(5)
    run(tmp_path / "stopped", OPTIMIZERS[name], seed=4)
    straight, stopped = latest(tmp_path / "straight"), latest(tmp_path / "stopped")
    assert straight is not None
    assert stopped is not None
    for file in (WEIGHTS, OPTIMIZER):
        assert (straight / file).read_bytes() == (stopped / file).read_bytes(), file
    losses = [line["loss"] for line in log.read(tmp_path / "straight") if line["kind"] == "train"]
    assert losses[-1] < losses[0] - 0.1


def test_the_state_of_muon_has_names(tmp_path: Path) -> None:
    run(tmp_path, OPTIMIZERS["nor_muon"])
    place = latest(tmp_path)
    assert place is not None
    kept = safetensors.torch.load_file(place / OPTIMIZER)
    qkv = "encoder.layers.1.mixer.qkv.weight"
    assert {key.rpartition("/")[2] for key in kept if key.startswith(qkv)} == {"step", "momentum_buffer", "row_squares"}
    assert kept[f"{qkv}/row_squares"].shape == (72, 1)
    assert kept[f"{qkv}/step"] == 10
    assert "encoder.embedding.tokens.weight/exp_avg_sq" in kept
