"""What changes how a step is computed: bfloat16 only a little of the numbers, computing layers twice none of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from tests.builders import CONFIGS
from torch import nn

from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.training import log, precision
from bothways.training.checkpoint import OPTIMIZER, WEIGHTS, latest
from bothways.training.loop import train
from bothways.training.optimizer import AdamW
from bothways.training.precision import InBfloat16, in_precision, multiplies_bfloat16
from bothways.training.schedule import Fraction, Linear, Steps
from bothways.training.settings import TrainingConfig

from .small import Small, TextStream

CPU = torch.device("cpu")


def trained(folder: Path, module: nn.Module, **changes: Any) -> tuple[bytes, bytes]:
    """Four steps of two micro-batches: the last checkpoint's weights and moments."""
    settings = TrainingConfig(
        optimizer=AdamW(lr=0.01), schedule=Linear(warmup=Fraction(of=0.25)), budget=Steps(count=4), accumulate=2, **changes
    )
    train(module, TextStream, settings, folder, device="cpu", run="{}")  # type: ignore[arg-type]
    place = latest(folder)
    assert place is not None
    return (place / WEIGHTS).read_bytes(), (place / OPTIMIZER).read_bytes()


def dropping(name: str) -> Small:
    """With dropout in every place that has one."""
    module = Small(name)
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.1
    return module


@pytest.mark.parametrize("name", ["bert", "albert", "deberta-v2"])
def test_layers_computed_twice_give_the_same_bits(name: str, tmp_path: Path) -> None:
    """With dropout, which must draw the same again."""
    calls = []

    def count(layer: nn.Module) -> None:
        layer.register_forward_pre_hook(lambda *_: calls.append(layer))

    kept, again = dropping(name), dropping(name)
    count(kept.encoder.stack[0])
    expected = trained(tmp_path / "kept", kept)
    once = len(calls)
    count(again.encoder.stack[0])
    assert trained(tmp_path / "again", again, recompute=True) == expected
    assert len(calls) == once + 2 * once


def test_recompute_keeps_less_for_the_backward_pass() -> None:
    sizes = {}
    for wanted in (False, True):
        module, saved = Small(layers=4), []
        precision.recompute(module, wanted)
        with torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x):
            module(next(TextStream(None)))
        sizes[wanted] = sum(saved)
    assert sizes[True] < 0.5 * sizes[False]


def test_without_gradients_nothing_is_computed_twice() -> None:
    module = Small()
    precision.recompute(module, True)
    with torch.no_grad():
        one = module(next(TextStream(None)))["loss"]
    precision.recompute(module, False)
    assert one == module(next(TextStream(None)))["loss"]


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch's RMSNorm on a CPU: slower, not wrong
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_family_in_bfloat16(name: str) -> None:
    """Loss and gradients of one step: bfloat16 keeps 8 bits, a relative error of 0.4 % in each rounding."""
    module, inputs = Small(name).eval(), next(TextStream(None))  # without dropout, whose draws differ
    results = {}
    for computed in (module, InBfloat16(module, CPU)):
        module.zero_grad()
        loss = computed(inputs)["loss"]
        loss.backward()
        results[type(computed)] = loss.item(), [p.grad.clone() for p in module.parameters() if p.grad is not None]
    (loss, gradients), (near, near_gradients) = results[Small], results[InBfloat16]
    assert near != loss
    assert near == pytest.approx(loss, rel=0.03)
    assert all(gradient.dtype == torch.float32 for gradient in near_gradients)
    whole, close = (torch.cat([one.flatten() for one in many]) for many in (gradients, near_gradients))
    assert torch.nn.functional.cosine_similarity(whole, close, dim=0) > 0.98


def test_weights_and_moments_stay_in_float32(tmp_path: Path) -> None:
    module, products = Small(), set[torch.dtype]()
    module.encoder.stack[0].mixer.qkv.register_forward_hook(lambda _m, _i, out: products.add(out.dtype))  # type: ignore[union-attr]
    exact = Small()
    trained(tmp_path / "exact", exact)
    trained(tmp_path / "half", module, precision="bf16_emulated")
    assert products == {torch.bfloat16}
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    losses = [[line["loss"] for line in log.read(tmp_path / name) if line["kind"] == "train"] for name in ("exact", "half")]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


@pytest.mark.parametrize("wanted", ["bf16", "bf16_emulated"])
def test_a_processor_without_bfloat16(wanted: Literal["bf16", "bf16_emulated"], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_f": True})
    assert not multiplies_bfloat16(CPU)
    if wanted == "bf16_emulated":
        assert isinstance(in_precision(Small(), wanted, CPU), InBfloat16)
        return
    with pytest.raises(InputError, match="precision: bf16 on this CPU, which has no instructions for it"):
        in_precision(Small(), wanted, CPU)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert isinstance(in_precision(Small(), wanted, CPU), InBfloat16)


def test_fp32_is_the_module_itself() -> None:
    module = Small()
    assert in_precision(module, "fp32", CPU) is module


def test_the_default_is_plain_torch_to_the_bit(tmp_path: Path) -> None:
    """None of the options is on: four steps are those of a few lines of torch with its own AdamW."""
    ours, plain, stream = Small(), Small(), TextStream(None)
    trained(tmp_path, ours)
    decayed = [p for p in plain.parameters() if p.ndim >= 2]
    groups = [{"params": decayed, "weight_decay": 0.01}]
    groups.append({"params": [p for p in plain.parameters() if p.ndim < 2], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-6, fused=True)
    for step in range(4):
        batches = [next(stream), next(stream)]
        count = sum(len(one.rows) for one in batches)
        optimizer.zero_grad()
        for one in batches:
            (plain(one)["loss"] * (1.0 / torch.tensor(count))).backward()
        torch.nn.utils.clip_grad_norm_(list(plain.parameters()), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (step / 1.0 if step < 1 else (4 - step) / 3)
        optimizer.step()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_options_are_off_by_default() -> None:
    plain = TrainingConfig(optimizer=AdamW(lr=0.1), schedule=Linear(), budget=Steps(count=1))
    assert plain == replace(plain, precision="fp32", recompute=False, ramp=None, accumulate=1)
    assert not Encoder(CONFIGS["bert"]).recompute
