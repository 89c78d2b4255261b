"""Runs of several stages: what a stage takes over, where it goes on, and that stopping changes nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.cli.conftest import WORDS

import bothways
from bothways.config import from_json, to_json
from bothways.data.masking import Masking
from bothways.data.packing import TokenBudget
from bothways.data.source import TextFiles
from bothways.data.tokenizer_training import WordPiece
from bothways.errors import InputError
from bothways.families.modernbert import modernbert
from bothways.layers.heads import MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm
from bothways.layers.position import Rotary
from bothways.recipes import pretraining
from bothways.recipes.pretraining import pretrain
from bothways.recipes.runs import ByLength, Pretraining, Stage, Staged
from bothways.recipes.staged import pretrain_stages
from bothways.training import checkpoint, log, loop, record
from bothways.training.interrupt import Asked, Interrupted
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Count, Fraction, Linear, Steps, Trapezoidal
from bothways.training.settings import TrainingConfig
from bothways.training.update import Updates

CONSTANT = Trapezoidal(warmup=Count(count=0), decay=Count(count=0))


def network(theta: float = 10_000.0, dropout: float = 0.1):
    return modernbert(
        120, 32, 2, 2, 32, max_length=64, window=8, pattern=(True, False), global_theta=theta, attention_dropout=dropout
    )


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine takes a second each time, and nothing here is about it."""
    monkeypatch.setattr(pretraining, "gemm_rate", lambda *_: 1e10)


@pytest.fixture
def base(tmp_path: Path) -> Pretraining:
    draw = random.Random(0)
    lines = [" ".join(draw.choices(WORDS.split(), k=draw.randint(5, 60))) for _ in range(60)]
    (tmp_path / "general.txt").write_text("\n".join(lines))
    (tmp_path / "domain.txt").write_text("\n".join(" ".join(reversed(line.split())) for line in lines[:30]))
    return Pretraining(
        family="modernbert",
        encoder=network(),
        head=MaskedLmHead(transform=Transform(bias=False, norm=LayerNorm(bias=False))),
        masking=Masking(rate=0.3),
        source=TextFiles(paths=(str(tmp_path / "general.txt"),), split="line"),
        tokenizer=WordPiece(vocab_size=120),
        batching=TokenBudget(tokens=128, window=4),
        training=training(CONSTANT, 6),
        max_length=16,
    )


def training(schedule: Trapezoidal | Linear, steps: int, lr: float = 1e-2) -> TrainingConfig:
    optimizer = AdamW(lr=lr, betas=(0.9, 0.98))
    budget = Steps(count=steps)
    return TrainingConfig(optimizer=optimizer, schedule=schedule, budget=budget, log_every=1, checkpoint_every=2, keep=9)


def three(base: Pretraining) -> Staged:
    """Longer texts with another rotary base; then another text, fewer masks, and the learning rate down to nothing."""
    domain = TextFiles(paths=(base.source.paths[0].replace("general", "domain"),), split="line")  # type: ignore[union-attr]
    anneal = training(Trapezoidal(warmup=Count(count=0), decay=Fraction(of=1.0)), 4)
    context = Stage(
        name="context", encoder=network(160_000.0), max_length=32, training=training(CONSTANT, 5, 5e-3), moments="kept"
    )
    return Staged(
        base=base,
        stages=(Stage(name="general"), context, Stage(name="anneal", source=domain, masking=Masking(rate=0.15), training=anneal)),
    )


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def test_a_stage_is_what_it_changes(base: Pretraining) -> None:
    general, context, anneal = three(base).runs
    assert general == base
    assert (context.max_length, context.encoder.layers[0].mixer.position) == (32, Rotary(theta=160_000.0))  # type: ignore[union-attr]
    assert (context.masking.rate, context.source) == (0.3, base.source)
    assert (anneal.max_length, anneal.masking.rate, anneal.encoder) == (32, 0.15, context.encoder)
    assert from_json(Staged, to_json(three(base)), "here") == three(base)


def test_three_stages_are_one_run(base: Pretraining, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained = pretrain_stages(three(base), out)
    assert (trained.result.step, trained.folder) == (15, out)
    model = bothways.load(out / "model", strict=True)
    assert model.spec.encoder.layers[0].mixer.position == Rotary(theta=160_000.0)  # type: ignore[union-attr]
    lines = log.read(out)
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == list(range(1, 16))
    assert [line["tokens"] for line in lines] == sorted(line["tokens"] for line in lines)
    assert list(dict.fromkeys(line["stage"] for line in lines)) == ["1-general", "2-context", "3-anneal"]
    known = record.read(out)
    assert known is not None
    assert from_json(Staged, json.dumps(known.run), "run.json") == three(base)
    page = (out / "report.html").read_text()
    assert all(word in page for word in ("general", "context", "anneal", "epochs", "Parameters ("))
    # the rates of the stages, one after another
    rates = [line["lr"] for line in lines if line["kind"] == "train"]
    assert rates == pytest.approx([1e-2] * 6 + [5e-3] * 5 + [1e-2 * (1 - 0.999 * (done / 4) ** 0.5) for done in range(4)])


def test_a_trapezoid_cut_in_two_is_the_trapezoid(base: Pretraining, tmp_path: Path) -> None:
    """Weights, moments, place in the text and dropout's draws all go on, so the cut changes not one bit."""
    whole = replace(base, training=training(Trapezoidal(warmup=Count(count=2), decay=Count(count=4), final=0.0), 11))
    rising = training(Trapezoidal(warmup=Count(count=2), decay=Count(count=0), final=0.0), 7)
    falling = training(Trapezoidal(warmup=Count(count=0), decay=Count(count=4), final=0.0), 4)
    cut = Staged(
        base=replace(base, training=rising), stages=(Stage(name="up"), Stage(name="down", training=falling, moments="kept"))
    )
    pretrain(whole, tmp_path / "whole")
    pretrain_stages(cut, tmp_path / "cut")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.parametrize("change", ["fresh moments", "other text", "no weights"])
def test_what_a_stage_takes_over_matters(base: Pretraining, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above would notice each of them."""
    falling = training(Trapezoidal(warmup=Count(count=0), decay=Count(count=4), final=0.0), 4)
    second = Stage(name="down", training=falling, moments="kept")
    straight = Staged(base=base, stages=(Stage(name="up"), second))
    pretrain_stages(straight, tmp_path / "straight")
    if change == "fresh moments":
        second = replace(second, moments="fresh")
    elif change == "other text":
        second = replace(second, source=three(base).stages[2].source)
    else:
        monkeypatch.setattr(checkpoint, "load_weights", lambda *_: None)
    pretrain_stages(Staged(base=base, stages=(Stage(name="up"), second)), tmp_path / "changed")
    assert weights(tmp_path / "changed") != weights(tmp_path / "straight")


def test_a_stage_ends_with_the_mean_of_its_last_checkpoints(base: Pretraining, tmp_path: Path) -> None:
    """Which the next stage begins with, and the model is."""
    falling = training(Trapezoidal(warmup=Count(count=0), decay=Count(count=4), final=0.0), 4)
    second = Stage(name="down", training=falling, average=2)
    out = tmp_path / "run"
    trained = pretrain_stages(Staged(base=base, stages=(Stage(name="up", average=3), second)), out)
    saved = [load_file(place / checkpoint.WEIGHTS) for place in checkpoint.complete(out / "2-down")[-2:]]
    (embedding,) = (name for name in saved[0] if name.endswith("tokens.weight"))
    model = bothways.load(out / "model").encoder.embedding.tokens.weight
    assert torch.allclose(model, (saved[0][embedding] + saved[1][embedding]) / 2, atol=1e-7)
    assert not torch.equal(saved[0][embedding], saved[1][embedding])
    assert trained.result.evaluation.keys() == {"loss", "accuracy"}
    last = [line for line in log.read(out) if line["kind"] == "evaluation"][-1]["metrics"]["loss"]
    assert trained.result.evaluation["loss"] != last  # of the last checkpoint alone
    assert "mean of its last 2 checkpoints" in (out / "report.html").read_text()
    # without the mean after the first stage the second is another
    pretrain_stages(Staged(base=base, stages=(Stage(name="up"), second)), tmp_path / "other")
    assert weights(tmp_path / "other") != weights(out)


def test_a_text_divided_by_length(base: Pretraining, tmp_path: Path) -> None:
    """All documents again, and half of the tokens from the longest; what is too long is told of in time."""
    parts = (ByLength(at_least=0, weight=1), ByLength(at_least=40, weight=1))
    said: list[str] = []
    longer = replace(base, by_length=parts)
    pretrain_stages(
        Staged(base=base, stages=(Stage(name="all"), Stage(name="long", by_length=parts))), tmp_path / "run", said.append
    )
    (line,) = (line for line in said if line.startswith("at-least-40"))
    assert 0 < int(line.split()[3].replace(",", "")) < 60, line
    page = (pretrain(longer, tmp_path / "one").report or tmp_path).read_text()
    assert "at-least-40" in page
    too_long = replace(base, by_length=(ByLength(at_least=5000, weight=1),))
    with pytest.raises(InputError, match="no document has 5,000 tokens"):
        pretrain(too_long, tmp_path / "none")


def test_a_stage_of_the_same_text_cut_otherwise_reads_its_next_epoch(base: Pretraining, tmp_path: Path) -> None:
    pretrain_stages(three(base), tmp_path / "run")
    first, second, third = (
        checkpoint.position(sorted((tmp_path / "run" / name / "checkpoints").iterdir())[0]).stream for name in three(base).folders
    )
    assert first is not None
    assert second is not None
    assert third is not None
    ended = checkpoint.position(checkpoint.latest(tmp_path / "run" / "1-general")).stream  # type: ignore[arg-type]
    assert second["epoch"] == ended["epoch"] + 1  # type: ignore[index]
    assert third["epoch"] == 0  # another text


@pytest.mark.slow
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    base: Pretraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after every number of steps, in every stage; a finished stage is not done again."""
    run = three(base)
    pretrain_stages(run, tmp_path / "straight")
    out, said = tmp_path / "stopped", []
    stops = 0
    while True:
        undo = stopping_after(2, monkeypatch)
        try:
            pretrain_stages(run, out, said.append)
        except Interrupted:
            stops += 1
            undo()
            continue
        undo()
        break
    assert stops >= 5
    assert weights(out) == weights(tmp_path / "straight")
    assert learned(out) == learned(tmp_path / "straight")
    said.clear()
    again = pretrain_stages(run, out, said.append)
    assert not any("stage 1" in line or "stage 2" in line for line in said)
    assert again.result.step == 15
    assert weights(out) == weights(tmp_path / "straight")


def test_a_damaged_end_of_a_stage_is_done_again(base: Pretraining, tmp_path: Path) -> None:
    run, out, said = three(base), tmp_path / "run", list[str]()
    pretrain_stages(run, out)
    before = weights(out)
    last = checkpoint.latest(out / "1-general")
    assert last is not None
    (last / checkpoint.WEIGHTS).write_bytes((last / checkpoint.WEIGHTS).read_bytes()[:-1])
    pretrain_stages(run, out, said.append)
    assert any(f"{last} is damaged" in line for line in said)
    assert any("stage 1 of 3" in line for line in said)
    assert not any("stage 2 of 3" in line for line in said)
    assert weights(out) == before


def stopping_after(count: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Asks the loop to stop once it has made so many steps, in whatever stage, until what is returned is called."""
    done, call = [0], Updates.__call__

    def counted(self, inputs, number, lr):  # type: ignore[no-untyped-def]
        done[0] += 1
        return call(self, inputs, number, lr)

    @contextmanager
    def asked(announce, team):  # type: ignore[no-untyped-def]
        stop = Asked(team)
        monkeypatch.setattr(Asked, "__call__", lambda self: done[0] >= count)
        yield stop

    monkeypatch.setattr(loop.Updates, "__call__", counted)
    monkeypatch.setattr(loop, "asked_to_stop", asked)

    return monkeypatch.undo


def learned(folder: Path) -> list[dict[str, object]]:
    """The log without what depends on the machine."""
    names = ("kind", "stage", "step", "tokens", "loss", "terms", "metrics", "lr", "gradient_norm", "rows")
    return [{name: line.get(name) for name in names} for line in log.read(folder) if line["kind"] != "machine"]


REFUSED = {
    "the same name": (lambda run: (Stage(name="a"), Stage(name="a")), "a name is given twice"),
    "another shape": (
        lambda run: (Stage(name="a"), Stage(name="b", encoder=replace(run.encoder, hidden_size=64))),
        r"stages\.1 \(b\): .* has the shape .*64",
    ),
    "another seed": (lambda run: (Stage(name="a", training=replace(run.training, seed=1)),), r"stages\.0 \(a\): training\.seed"),
    "nothing to keep": (lambda run: (Stage(name="a", moments="kept"),), "there are none of this optimizer"),
    "too long": (
        lambda run: (Stage(name="a"), Stage(name="b", max_length=65)),
        r"stages\.1 .* 65 exceeds encoder",
    ),
    "a mean of more than is kept": (lambda run: (Stage(name="a", average=10),), "training.keep leaves 9"),
    "no text": (lambda run: (Stage(name="a"), Stage(name="b", source=TextFiles(paths=("nowhere",)))), "nowhere"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_later_stage_cannot_do_is_refused_at_once(base: Pretraining, tmp_path: Path, what: str) -> None:
    stages, said = REFUSED[what]
    with pytest.raises(InputError, match=said):
        pretrain_stages(Staged(base=base, stages=stages(base)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_run_does_not_go_on_in_the_folder(base: Pretraining, tmp_path: Path) -> None:
    run, out = three(base), tmp_path / "run"
    pretrain_stages(run, out)
    other = replace(run, stages=(*run.stages[:2], replace(run.stages[2], masking=Masking(rate=0.2))))
    with pytest.raises(InputError, match=r"stages\.2\.masking\.rate was 0\.15, now 0\.2"):
        pretrain_stages(other, out)
    with pytest.raises(InputError, match="belongs to another run"):
        pretrain(base, out)
    faster = replace(run, base=replace(base, workers=1))
    assert pretrain_stages(faster, out).result.step == 15
