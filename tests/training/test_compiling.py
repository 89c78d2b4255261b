"""Compiled layers: one graph a kind of layer, whatever the lengths; the same numbers, names and checkpoints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from rich.console import Console
from tests.builders import CONFIGS, gap, random_batch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from bothways.config import to_json
from bothways.encoder.encoder import Encoder, EncoderLayer
from bothways.errors import InputError
from bothways.ragged import Capacity
from bothways.training import compiling, log
from bothways.training.checkpoint import place_of
from bothways.training.compiling import compile_layers, uncompiled
from bothways.training.loop import train
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Fraction, Linear, Steps
from bothways.training.settings import TrainingConfig, Watch

from .small import Small, Texts

# Of torch's compiler alone, which warns of what it does itself
pytestmark = pytest.mark.filterwarnings("default")

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
ROOM = Capacity(tokens=40, slots=7, longest=17)
# Kinds of layers: ModernBERT's first has no norm of its own, the others are local or global
KINDS = {"bert": 1, "modernbert": 3, "albert": 1}


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """Counts what is compiled, by all of torch's compiler but the last part, which needs one of C++."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(compiling, "BACKEND", counter)
    # annotations are not checked: what checks them is Python that cannot be compiled
    jaxtyping.config.update("jaxtyping_disable", True)
    yield counter
    jaxtyping.config.update("jaxtyping_disable", False)
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def counted() -> dict[str, Any]:
    """What `graphs.py` finds, in a process where annotations are not checked: what checks them would be compiled, too."""
    ran = subprocess.run([sys.executable, "-m", "tests.training.graphs"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_one_graph_for_each_kind_of_layer_and_none_for_other_lengths(name: str, counted: dict[str, Any]) -> None:
    found = counted["reference"][name]
    assert found["graphs"][:3] == [KINDS[name]] * 3  # of batches of different lengths
    assert found["graphs"][3] > KINDS[name]  # with one of another shape
    assert max(found["gaps"]) <= 1e-5


@pytest.mark.slow
def test_what_reads_lengths_stays_outside_the_graphs(counted: dict[str, Any]) -> None:
    """The usual attention of a CPU, global tokens, long convolutions, rows of relative positions."""
    for name, found in counted["usual"].items():
        first, *others = found["graphs"][:3]
        assert others == [first, first], name
        assert max(found["gaps"]) <= 1e-5, name


@pytest.mark.slow
def test_attention_of_packed_sequences_on_cuda_lies_in_the_graph(counted: dict[str, Any]) -> None:
    """Traced as on a GPU, and never carried out: torch's kernel stands in one graph, with no length of a sequence in it."""
    assert counted["varlen"] == {"graphs": 1, "calls": 1, "longest": [17, 17]}


@pytest.mark.slow
def test_names_of_weights_stay(graphs: CompileCounterWithBackend) -> None:
    module = Small("modernbert")
    names = list(module.state_dict())
    compile_layers(module, True, CPU)
    module(next(Stream(None)))["loss"].backward()
    assert list(module.state_dict()) == names
    assert [name for name, _ in module.named_parameters()] == [name for name, _ in Small("modernbert").named_parameters()]
    assert len([part for part in module.modules() if isinstance(part, EncoderLayer)]) == 2


class Stream:
    """Batches of one shape; input k is a function of k."""

    def __init__(self, state: Any) -> None:
        self.batch = (state or {"batch": 0})["batch"]

    def __next__(self) -> Texts:
        self.batch += 1
        return Texts(random_batch([5 + self.batch % 4, 9], seed=self.batch).to_capacity(ROOM))

    def state(self) -> dict[str, int]:
        return {"batch": self.batch}

    def close(self) -> None:
        pass


def trained(folder: Path, compile: bool, watch: Watch | None = None, **changes: Any) -> Small:
    module = Small("modernbert")
    settings = TrainingConfig(
        optimizer=AdamW(lr=0.01), schedule=Linear(warmup=Fraction(of=0.25)), budget=Steps(count=4), accumulate=2,
        compile=compile, checkpoint_every=1, keep=4, **changes,
    )  # fmt: skip
    run = to_json(settings)
    train(module, Stream, settings, folder, device="cpu", run=run, free=("compile",), watch=watch)  # type: ignore[arg-type]
    return module


def apart(one: nn.Module, other: nn.Module) -> float:
    return max(gap(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_a_run_goes_on_with_and_without(recompute: bool, tmp_path: Path, graphs: CompileCounterWithBackend) -> None:
    plain = trained(tmp_path / "plain", compile=False, recompute=recompute)
    assert graphs.frame_count == 0
    compiled = trained(tmp_path / "mixed", compile=True, recompute=recompute)
    assert graphs.frame_count > 2
    assert apart(compiled, plain) <= 1e-4  # four steps of AdamW
    for step in (3, 4):  # as a kill after step 2 would have left it
        shutil.rmtree(place_of(tmp_path / "mixed", step))
    resumed = trained(tmp_path / "mixed", compile=False, recompute=recompute)
    assert apart(resumed, plain) <= 1e-4
    for step in (3, 4):
        shutil.rmtree(place_of(tmp_path / "plain", step))
    assert apart(trained(tmp_path / "plain", compile=True, recompute=recompute), plain) <= 1e-4


def test_a_run_that_goes_on_is_bit_equal(tmp_path: Path, graphs: CompileCounterWithBackend) -> None:
    whole = trained(tmp_path, compile=True)
    for step in (3, 4):
        shutil.rmtree(place_of(tmp_path, step))
    again = trained(tmp_path, compile=True)
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.slow
def test_held_out_inputs_and_the_trained_module_are_not_compiled(tmp_path: Path, graphs: CompileCounterWithBackend) -> None:
    counted = []

    def evaluate() -> dict[str, float]:
        before = graphs.frame_count
        for length in (3, 4, 5):
            module.encoder(random_batch([length]))
        counted.append(graphs.frame_count - before)
        return {}

    module = Small("modernbert")
    settings = TrainingConfig(optimizer=AdamW(lr=0.01), schedule=Linear(), budget=Steps(count=2), compile=True, evaluate_every=1)
    watch = Watch(evaluate=evaluate, console=Console(quiet=True))
    train(module, Stream, settings, tmp_path, device="cpu", run="{}", watch=watch)  # type: ignore[arg-type]
    assert graphs.frame_count > 2
    evaluate()
    assert counted == [0, 0, 0]


def test_filler_counts_for_nothing_but_its_own_share(tmp_path: Path) -> None:
    trained(tmp_path, compile=False)
    stream, lines = Stream(None), [line for line in log.read(tmp_path) if line["kind"] == "train"]
    tokens = [next(stream).tokens + next(stream).tokens for _ in range(4)]
    assert [line["tokens"] for line in lines] == list(accumulate(tokens))
    assert [line["filler"] for line in lines] == pytest.approx([1 - count / (2 * ROOM.tokens) for count in tokens])


def test_a_layer_is_as_it_was(graphs: CompileCounterWithBackend) -> None:
    module = Encoder(CONFIGS["bert"])
    compile_layers(module, True, CPU)
    with uncompiled(module):
        assert all(layer._compiled_call_impl is None for layer in module.layers)
    assert all(layer._compiled_call_impl is not None for layer in module.layers)
    compile_layers(module, False, CPU)
    before = graphs.frame_count
    module(random_batch([5, 9]))
    assert graphs.frame_count == before


def test_a_machine_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing there that was compiled before
    torch._dynamo.reset()
    with (
        inductor.patch({"cpp.cxx": (str(tmp_path / "g++"),), "force_disable_caches": True}),
        pytest.raises(InputError, match=r"cannot compile for this CPU \(.*\); install a C\+\+ compiler .* or set it to false"),
    ):
        trained(tmp_path / "run", compile=True)
    torch._dynamo.reset()
    assert not (tmp_path / "run").exists()


def test_an_encoder_that_fills_its_texts_up(graphs: CompileCounterWithBackend) -> None:
    module = Encoder(replace(CONFIGS["m2_bert"], filler=0))
    with pytest.raises(InputError, match=r"training\.compile: this encoder fills every text up"):
        compile_layers(module, True, CPU)
    compile_layers(module, False, CPU)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
def test_torch_s_own_compiler() -> None:
    command = [sys.executable, "-m", "tests.training.graphs", "inductor"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    for backend in json.loads(ran.stdout).values():
        assert max(backend["modernbert"]["gaps"]) <= 1e-5
