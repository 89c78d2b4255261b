"""The loop: exact resume, signals, budgets, evaluation, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bothways.errors import InputError
from bothways.training import checkpoint, log
from bothways.training.checkpoint import FOLDER, OPTIMIZER, WEIGHTS, latest, position
from bothways.training.interrupt import Interrupted
from bothways.training.loop import DivergedError
from bothways.training.optimizer import AdamW, build, default_groups, parameter_table
from bothways.training.schedule import Count, Elapsed, Hours, Linear, Steps, Tokens
from bothways.training.settings import Watch

from .toy import RUN, STEPS, Rows, Stream, Toy, run

TIMES = {"seconds", "tokens_per_second", "gemm_rate", "memory"}


def final(folder: Path) -> tuple[bytes, bytes]:
    """The last checkpoint's weights and optimizer state, byte for byte."""
    place = latest(folder)
    assert place is not None
    assert place.name == f"step-{STEPS:07d}"
    return (place / WEIGHTS).read_bytes(), (place / OPTIMIZER).read_bytes()


def timeless(folder: Path) -> list[dict[str, Any]]:
    """The log without what a clock or the process decides."""
    lines = [line for line in log.read(folder) if line["kind"] != "machine"]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("straight")
    run(folder, watch=Watch(evaluate=lambda: {"loss": 1.0}))
    return folder


def at(number: int, action: Callable[[], Any]) -> Callable[[int], None]:
    return lambda step: action() if step == number else None


def stop_now() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """A shell starts what it runs in the background deaf to Ctrl-C; these tests are not to depend on that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 9, 14])
def test_a_signal_saves_and_the_same_call_goes_on(straight: Path, tmp_path: Path, number: int, step: int) -> None:
    with pytest.raises(Interrupted, match=rf"stopped after step {step}, saved .*the same command goes on") as caught:
        run(tmp_path, after_step=at(step, lambda: os.kill(os.getpid(), number)))
    assert caught.value.checkpoint == latest(tmp_path)
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    torch.manual_seed(99)  # a new process would stand elsewhere
    result = run(tmp_path, module=Toy(dropout=0.2, seed=8), watch=Watch(evaluate=lambda: {"loss": 1.0}))
    assert final(tmp_path) == final(straight)
    assert (result.step, result.tokens) == (STEPS, log.read(straight)[-1]["tokens"])


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, after_step=at(4, twice))
    assert latest(tmp_path) == tmp_path / FOLDER / "step-0000003"


def test_a_crash_between_checkpoints_repeats_no_line_of_the_log(straight: Path, tmp_path: Path) -> None:
    def crash() -> None:
        raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path, watch=Watch(evaluate=lambda: {"loss": 1.0}), after_step=at(11, crash))
    with (tmp_path / log.NAME).open("a") as file:
        file.write('{"kind": "train", "st')  # cut short by the crash
    assert log.read(tmp_path)[-1]["step"] == 10  # past the checkpoint of step 9
    run(tmp_path, watch=Watch(evaluate=lambda: {"loss": 1.0}))
    assert timeless(tmp_path) == timeless(straight)
    assert final(tmp_path) == final(straight)


def test_dropout_depends_on_the_seed_alone(straight: Path, tmp_path: Path) -> None:
    run(tmp_path / "other", changes={"seed": 1})
    assert final(tmp_path / "other") != final(straight)


def test_every_micro_batch_draws_anew(tmp_path: Path) -> None:
    class Listening(Toy):
        def forward(self, inputs: Rows) -> dict[str, Tensor]:
            seeds.append(torch.initial_seed())
            return super().forward(inputs)

    seeds: list[int] = []
    run(tmp_path, module=Listening())
    assert len(set(seeds)) == 2 * STEPS


def test_the_log_adds_up(straight: Path) -> None:
    lines = log.read(straight)
    train = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in train] == [2, 3, 4, 6, 8, 9, 10, 12, 14, 15, 16, 18, 20]  # every 2, and at checkpoints
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [5, 10, 15, 20]
    stream = Stream(None)
    assert train[-1]["tokens"] == sum(next(stream).tokens for _ in range(2 * STEPS))
    for line in train:
        assert line["loss"] == pytest.approx(line["terms"]["cross_entropy"] + 0.5 * line["terms"]["size"])
        assert line["metrics"].keys() == {"accuracy"}
    assert [line["lr"] for line in train[:4]] == pytest.approx([0.005, 0.01, 0.015, 0.02 * 15 / 16])  # 20 steps, 4 of warm-up
    assert train[-1]["loss"] < train[0]["loss"]


def test_a_finished_run_is_not_trained_again(straight: Path) -> None:
    before = final(straight)
    result = run(straight, after_step=lambda _: pytest.fail("a step was made"))
    assert final(straight) == before
    assert (result.step, result.evaluation, result.loss) == (STEPS, {"loss": 1.0}, log.read(straight)[-2]["loss"])


def test_accumulation_changes_nothing_but_rounding(tmp_path: Path) -> None:
    """1 x 8 rows against 2 x 4 with different counts, in weights and in the logged loss."""

    class Fixed:
        def __init__(self, parts: list[list[Rows]]) -> None:
            self.left = [part for step in parts for part in step]

        def __next__(self) -> Rows:
            return self.left.pop(0)

        def state(self) -> dict[str, int]:
            return {}

        def close(self) -> None:
            pass

    def rows(number: int) -> Rows:
        ids = (torch.arange(8) * (number + 2)) % 11
        return Rows(ids, (ids + 1) % 11, torch.tensor([1, 1, 1, 0, 0, 0, number % 2, 0]).bool())

    whole, halves = [[rows(n)] for n in range(6)], [rows(n).cut(4, 4) for n in range(6)]
    modules = Toy(), Toy()
    for module, parts, name in zip(modules, (whole, halves), ("whole", "halves"), strict=True):
        changes = {"accumulate": len(parts[0]), "budget": Steps(count=6)}
        run(tmp_path / name, module=module, changes=changes, open_stream=lambda _, parts=parts: Fixed(parts))
    for one, other in zip(*(module.parameters() for module in modules), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    losses = [[line["loss"] for line in timeless(tmp_path / name)] for name in ("whole", "halves")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_tokens_end_the_run_and_drive_the_schedule(tmp_path: Path) -> None:
    changes = {"budget": Tokens(count=300), "log_every": 1, "schedule": Linear(warmup=Count(count=100))}
    result = run(tmp_path, changes=changes)
    lines = [line for line in log.read(tmp_path) if line["kind"] == "train"]
    assert lines[-2]["tokens"] < 300 <= lines[-1]["tokens"] == result.tokens
    done = [0, *(line["tokens"] for line in lines[:-1])]
    expected = [0.02 * (tokens / 100 if tokens < 100 else (300 - tokens) / 200) for tokens in done]
    assert [line["lr"] for line in lines] == pytest.approx(expected)


def test_hours_are_measured_once_and_frozen(tmp_path: Path) -> None:
    """A clock that moves by one second a look: a step takes one second. 0.01 hours are 36 of them."""
    streams: list[Stream] = []

    def opened(state: dict[str, int] | None) -> Stream:
        streams.append(Stream(state))
        return streams[-1]

    def ticking(seconds: float) -> Callable[[], float]:
        now = iter(range(10**6))
        return lambda: seconds * next(now)

    hours = {"budget": Hours(hours=0.01)}
    with pytest.raises(Interrupted):
        run(
            tmp_path / "hours",
            changes=hours,
            open_stream=opened,
            watch=Watch(clock=ticking(1.0)),
            after_step=at(5, lambda: os.kill(os.getpid(), signal.SIGINT)),
        )
    stream = Stream(None)
    steps = [sum(next(stream).tokens for _ in range(2)) for _ in range(5)]
    tokens = round(sum(steps[1:]) / 4 * 36)  # the first step warms up
    assert json.loads((tmp_path / "hours" / "run.json").read_text())["budget"] == {"type": "tokens", "count": tokens}
    assert [stream.closed for stream in streams] == [True, True]
    run(tmp_path / "hours", changes=hours, watch=Watch(clock=ticking(50.0)))
    assert json.loads((tmp_path / "hours" / "run.json").read_text())["budget"] == {"type": "tokens", "count": tokens}
    run(tmp_path / "tokens", changes={"budget": Tokens(count=tokens)})
    places = latest(tmp_path / "hours"), latest(tmp_path / "tokens")
    assert places[0] is not None
    assert places[1] is not None
    assert places[0].name == places[1].name
    assert (places[0] / WEIGHTS).read_bytes() == (places[1] / WEIGHTS).read_bytes()  # measuring has moved nothing


def test_elapsed_time_drives_the_schedule_and_ends_the_run(tmp_path: Path) -> None:
    """A clock of 10 seconds a step, and 100 seconds: ten steps, on a rate that falls by a tenth of the time that is spent.

    Stopped after the fourth, and gone on with at 25 seconds a step: 40, 65, 90, 115, so the seventh step is the last.
    """

    def ticking(seconds: float) -> Watch:
        now = iter(range(10**6))
        return Watch(clock=lambda: seconds * next(now))

    changes = {"budget": Elapsed(hours=100 / 3600), "schedule": Linear(warmup=Count(count=0)), "log_every": 1}
    result = run(tmp_path / "straight", changes=changes, watch=ticking(10.0))
    rates = [line["lr"] for line in log.read(tmp_path / "straight") if line["kind"] == "train"]
    assert rates == pytest.approx([0.02 * (1 - 0.1 * step) for step in range(10)])
    assert (result.step, result.seconds) == (10, 100.0)
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", changes=changes, watch=ticking(10.0), after_step=at(4, stop_now))
    result = run(tmp_path / "stopped", changes=changes, watch=ticking(25.0))
    rates = [line["lr"] for line in log.read(tmp_path / "stopped") if line["kind"] == "train"]
    assert rates == pytest.approx([0.02 * left for left in (1.0, 0.9, 0.8, 0.7, 0.6, 0.35, 0.1)])
    assert (result.step, result.seconds) == (7, 115.0)
    place = latest(tmp_path / "stopped")
    assert place is not None
    assert place.name == "step-0000007"
    fresh = Toy(seed=8)
    optimizer = build(AdamW(lr=0.02), fresh, parameter_table(fresh, default_groups(AdamW(lr=0.02), fresh)))
    checkpoint.load(place, fresh, optimizer)
    assert position(place).seconds == 115.0
    assert run(tmp_path / "stopped", changes=changes).step == 7  # over: nothing is trained again


def test_a_signal_while_measuring_leaves_no_run_behind(tmp_path: Path) -> None:
    now = iter(range(10**6))

    def clock() -> float:
        os.kill(os.getpid(), signal.SIGINT)
        return float(next(now))

    with pytest.raises(Interrupted, match=r"stopped after step 0, nothing to save yet"):
        run(tmp_path, changes={"budget": Hours(hours=1.0)}, watch=Watch(clock=clock))
    assert not list(tmp_path.iterdir())


def test_another_run_is_refused_by_its_first_difference(straight: Path) -> None:
    before = final(straight), (straight / log.NAME).read_bytes(), (straight / "run.json").read_bytes()
    other = RUN.replace("0.5", "0.3")
    with pytest.raises(InputError, match=r"run.json belongs to another run: objective.rate was 0.5, now 0.3; choose"):
        run(straight, run=other)
    with pytest.raises(InputError, match=r'objective.kind was absent, now "x"'):
        run(straight, run=RUN.replace('"rate"', '"kind": "x", "rate"'))
    assert (final(straight), (straight / log.NAME).read_bytes(), (straight / "run.json").read_bytes()) == before
    run(straight, run=other, free=["objective"])


def test_a_checkpoint_of_another_run_is_refused(straight: Path, tmp_path: Path) -> None:
    run(tmp_path, run=RUN.replace("0.5", "0.3"), changes={"budget": Steps(count=2)})
    shutil.copytree(straight / FOLDER / f"step-{STEPS:07d}", tmp_path / FOLDER / f"step-{STEPS:07d}")
    with pytest.raises(InputError, match=r"step-0000020 belongs to another run: objective.rate was 0.5, now 0.3"):
        run(tmp_path, run=RUN.replace("0.5", "0.3"), changes={"budget": Steps(count=2)})


def test_a_folder_with_a_log_but_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / log.NAME).write_text("mine\n")
    with pytest.raises(InputError, match=r"there is log.jsonl but no run.json"):
        run(tmp_path)
    assert (tmp_path / log.NAME).read_text() == "mine\n"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"cannot write .*file"):
        run(tmp_path / "file")


@pytest.mark.parametrize("text", ["", "[]", '{"run": {}}', "\udcff"])
def test_a_damaged_run_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"run.json: not the record of a run"):
        run(tmp_path)


class Breaking(Toy):
    """Its loss is not a number from the ninth micro-batch on, that is in step 5."""

    def forward(self, inputs: Rows) -> dict[str, Tensor]:
        self.calls += 1
        sums = super().forward(inputs)
        return sums | {"cross_entropy": sums["cross_entropy"] * (float("nan") if self.calls > 8 else 1.0)}


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"step 5: the loss is nan .* the last checkpoint is .*step-0000003"):
        run(tmp_path, module=Breaking())
    assert latest(tmp_path) == tmp_path / FOLDER / "step-0000003"
    assert log.read(tmp_path)[-1]["step"] == 4


def test_clipping_bounds_the_global_norm(tmp_path: Path) -> None:
    norms: list[float] = []
    module = Toy()

    def look(_: int) -> None:
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None]).item())

    run(tmp_path, module=module, changes={"clip": 0.1}, after_step=look)
    assert norms == pytest.approx([0.1] * STEPS, rel=1e-4)
    lines = [line for line in log.read(tmp_path) if line["kind"] == "train"]
    assert all(line["gradient_norm"] > 0.1 for line in lines)  # logged before clipping
    free = Toy()
    run(tmp_path / "free", module=free, changes={"clip": None})
    assert log.read(tmp_path / "free")[0]["gradient_norm"] == pytest.approx(lines[0]["gradient_norm"], rel=0.05)


def test_whole_batch_losses_are_not_accumulated(tmp_path: Path) -> None:
    class Coupled(Toy):
        whole_batch = True

    with pytest.raises(InputError, match="accumulate is 2, but this loss couples"):
        run(tmp_path, module=Coupled())
    assert not list(tmp_path.iterdir())


def test_inputs_that_end_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the inputs ended before the budget was spent"):
        run(tmp_path, open_stream=lambda state: Stream(state, end=7))


def test_evaluation_has_no_dropout_and_no_gradient(tmp_path: Path) -> None:
    module, seen = Toy(dropout=0.2), []

    def evaluate() -> dict[str, float]:
        seen.append((module.training, torch.is_grad_enabled()))
        return {"loss": float("nan")}

    run(tmp_path, module=module, watch=Watch(evaluate=evaluate, samples=lambda: [{"text": "a", "top": "b"}]))
    assert seen == [(False, False)] * 4
    assert module.training
    lines = log.read(tmp_path)
    assert [line["metrics"] for line in lines if line["kind"] == "evaluation"] == [{"loss": None}] * 4
    assert lines[-1]["rows"] == [{"text": "a", "top": "b"}]


def test_the_share_of_the_gemm_rate(tmp_path: Path) -> None:
    """One second a step by the clock, so the share is 3 times the FLOPs over the rate."""
    now = iter(range(10**6))
    run(tmp_path, watch=Watch(rate=1e6, clock=lambda: float(next(now))), changes={"log_every": 1, "accumulate": 1})
    stream, module = Stream(None), Toy()
    inputs = next(stream)
    line = log.read(tmp_path)[0]
    assert line["tokens_per_second"] == inputs.tokens
    assert line["gemm_share"] == pytest.approx(3 * module.flops(inputs) / 1e6)


def test_the_step_is_a_seam(tmp_path: Path) -> None:
    def still(
        module: Toy, inputs: list[Rows], seed: Callable[[int], None], _: object
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        return {"cross_entropy": torch.tensor(6.0)}, {"cross_entropy": torch.tensor(2)}

    assert run(tmp_path, step=still).loss == 3.0
