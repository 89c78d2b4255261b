"""What a plan computes from what it has measured: scaling, budgets, energy, money, sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bothways.config import override
from bothways.data.mixture import Mixture, Part
from bothways.data.sentence_blocks import WholeSentences
from bothways.data.source import TextFiles
from bothways.errors import InputError
from bothways.recipes import planned_text, planning
from bothways.recipes.classic import bert
from bothways.recipes.measuring import Measured, Network
from bothways.recipes.planned_text import PlannedText, assumed, sampled
from bothways.recipes.planning import Terms, plan
from bothways.recipes.runs import Pretraining
from bothways.recipes.sizing import optimal_parameters, suited
from bothways.training.memory import Footprint
from bothways.training.schedule import Hours, Steps, Tokens

MEASURED = Measured(
    steps=10,
    tokens=100.0,
    drawing=0.1,
    gradients=0.9,
    update=0.5,
    low=60.0,
    high=70.0,
    rates=(1e6, 3e6),
    flops=1000.0,
    peak=5000,
)
TEXT = PlannedText(np.full(10, 32), "some text", tokens=10_000)


def tiny(*changes: str, budget: Any = None) -> Pretraining:
    small = ("encoder.num_layers=1", "batching.tokens=200", "encoder.vocab_size=320", "tokenizer.vocab_size=300", "max_length=32")
    return override(bert(TextFiles(paths=("texts",)), budget or Steps(count=6), "tiny"), (*small, *changes))


def spent(run: Pretraining, terms: Terms | None = None, text: PlannedText = TEXT, metered: float | None = None) -> planning.Spent:
    return planning._spent(run, terms or Terms(), text, MEASURED, scale=2.0, metered=metered)


@pytest.mark.parametrize("budget", [Steps(count=6), Tokens(count=4500), Hours(hours=6 * 8.5 / 3600)])
def test_every_budget_comes_to_steps_tokens_and_seconds(budget: Any) -> None:
    """A step: four micro-batches of 200 tokens, each twice 1.0 s, and one update of 0.5 s."""
    found = spent(tiny("training.accumulate=4", budget=budget))
    assert (found.steps, found.tokens) == (6, 4800)
    assert found.seconds == pytest.approx(6 * 8.5)
    assert found.epochs == pytest.approx(4800 / (10_000 * 0.98))


def test_a_ramp_takes_more_steps_for_the_same_tokens() -> None:
    """Two steps of one micro-batch, two of two, then three at a time: 200 tokens each."""
    run = tiny("training.accumulate=3", 'training.ramp={"type": "equal_updates", "first": 1, "updates": 2}')
    found = spent(override(run, ['training.budget={"type": "tokens", "count": 2400}']))
    assert (found.steps, found.tokens) == (6, 2 * 200 + 2 * 400 + 2 * 600)
    assert found.seconds == pytest.approx(12 * 2.0 + 6 * 0.5)


def test_workers_prepare_meanwhile() -> None:
    assert spent(tiny("workers=2")).seconds == pytest.approx(6 * (2 * 0.9 + 0.5))


@pytest.mark.parametrize(("every", "looks"), [("null", 1), ("2", 3), ("4", 2)])
def test_evaluation_is_a_third_of_a_step_without_its_update(every: str, looks: int) -> None:
    """200 of 10,000 tokens are held out: one micro-batch."""
    assert spent(tiny(f"training.evaluate_every={every}")).evaluation == pytest.approx(looks * 2 * 0.9 / 3)


def test_energy_and_money() -> None:
    found = spent(tiny(budget=Hours(hours=10)), Terms(watts=100.0, price=0.5))
    assert found.kwh == pytest.approx(1.0, rel=1e-3)
    assert found.money == pytest.approx(5.0, rel=1e-3)
    assert not found.metered
    metered = spent(tiny(budget=Hours(hours=10)), metered=50.0)
    assert (metered.watts, metered.metered) == (50.0, True)
    assert metered.kwh == pytest.approx(0.5, rel=1e-3)
    assert metered.money is None
    assert spent(tiny()).kwh is None


def test_memory_adds_up() -> None:
    one = Footprint(weights=10, gradients=10, optimizer=20, activations=400, peak=430)
    found = planning._memory(tiny(), TEXT, one, 0.1, 100, own=1000, free=10_000)
    assert (found.text, found.allocator, found.saving) == (20_000, 40, 0)
    assert found.peak == 430 + 40 + 1000 + 20_000
    assert found.tokens is None  # the text alone takes it all
    small = planning._memory(tiny(), replace(TEXT, tokens=100), one, 0.1, 100, own=1000, free=10_000)
    # 200 tokens take 440 bytes: 9000 less 430 are free beside them, and the program and the text take 1200
    assert small.tokens == int(200 + (9000 - 430) * 200 / 440) - round(1200 * 200 / 440)
    # what holds the gaps is known of the program alone: without it there is room for the usual ones
    unsaid = planning._memory(tiny(), replace(TEXT, tokens=100), one, 0.0, 100, own=None, free=10_000)
    share = 1 + planning._SLACK
    assert unsaid.tokens == int(200 + (9000 - 430) * 200 / (400 * share)) - round(200 * 200 / (400 * share))
    saved = planning._memory(tiny("training.checkpoint_every=50"), TEXT, one, 0.1, 100, own=1000, free=None)
    assert (saved.saving, saved.peak - found.peak, saved.tokens) == (50, 50, None)


def test_what_steps_held_beyond_their_tensors() -> None:
    """One micro-batch at a time is measured, whatever a step of the run has."""
    run = tiny("training.accumulate=3")
    once = Network(tiny("training.accumulate=1"), TEXT).footprint(64)
    measured = replace(MEASURED, peak=10_000 + once.peak + once.activations // 2)
    assert planning._slack(Network(run, TEXT), 64, measured, 10_000) == pytest.approx(0.5, rel=1e-4)
    assert planning._slack(Network(run, TEXT), 64, replace(MEASURED, peak=1), 10_000) == 0
    assert planning._slack(Network(run, TEXT), 64, replace(MEASURED, peak=None), 10_000) == planning._SLACK
    assert planning._slack(Network(run, TEXT), 64, measured, None) == 0  # of a GPU, tensors alone are counted


def test_operations_over_time() -> None:
    assert MEASURED.rate == 1.5e6


def test_what_the_rule_makes_of_a_budget() -> None:
    assert optimal_parameters(6 * 1000 * 20_000) == 1000
    sizes = {"large": (10_000, 60_000.0), "small": (100, 600.0), "middle": (1000, 6000.0)}
    name, rows = suited(sizes, 6000.0 * 20_000)
    assert name == "middle"
    assert [(one.name, one.tokens) for one in rows] == [("small", 200_000), ("middle", 20_000), ("large", 2000)]
    assert suited(sizes, 600.0)[0] == "small"


def test_a_text_is_cut_as_training_cuts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, words in enumerate((100, 30, 5)):
        (tmp_path / f"{number}.txt").write_text("a " * words)
    run = replace(tiny(), source=TextFiles(paths=(str(tmp_path),)))
    text = sampled(run)
    assert sorted(text.lengths.tolist()) == [7, 12, *[32] * 4]  # 100 = 3 * 30 + 10, 30, 5; two special tokens each
    assert (text.tokens, text.whole) == (int(text.lengths.sum()), True)
    blocks = sampled(replace(run, blocks=WholeSentences()))  # documents run on: 135 = 4 * 30 + 15
    assert sorted(blocks.lengths.tolist()) == [17, *[32] * 4]
    apart = sampled(replace(run, blocks=WholeSentences(across=False)))
    assert apart.lengths.tolist() == text.lengths.tolist()
    # only the first document is looked at; the others are counted by their characters
    monkeypatch.setattr(planned_text, "_CHARACTERS", 50)
    assert sampled(run).tokens == round((100 + 4 * 2) * 270 / 200)


def test_sources_are_mixed_by_their_tokens(tmp_path: Path) -> None:
    """Long samples of one, short ones of the other: as many tokens of either."""
    for name, words in (("long", 300), ("short", 8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_text("a " * words)
    parts = tuple(
        Part(name=name, weight=weight, source=TextFiles(paths=(str(tmp_path / name),)))
        for name, weight in (("long", 3.0), ("short", 1.0))
    )
    text = sampled(replace(tiny(), source=Mixture(parts=parts)))
    assert set(text.lengths.tolist()) == {10, 32}
    assert text.lengths[text.lengths == 32].sum() / text.lengths.sum() == pytest.approx(0.75, rel=0.05)
    assert text.tokens == 10 * 32 + 10


def test_an_empty_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("  \n")
    with pytest.raises(InputError, match="no text"):
        sampled(replace(tiny(), source=TextFiles(paths=(str(tmp_path),))))


def test_inputs_are_full_and_of_the_texts_lengths() -> None:
    run = tiny()
    inputs = Network(run, assumed(run)).inputs(200)
    assert inputs.batch.ragged.lengths == (32,) * 6
    assert int(inputs.batch.ids.max()) < 320


def test_a_plan_of_real_steps() -> None:
    found = plan(tiny(), Terms(seconds=0.0), with_text=False, sizes={"tiny": tiny()})
    assert found.measured.steps == 5
    assert found.tokens_per_second > 0
    assert found.memory.peak > found.memory.weights + found.memory.optimizer + found.memory.activations
    assert found.memory.weights == pytest.approx(4 * found.total, rel=0.02)  # a tied head's table once
    assert found.suggested == "tiny"


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_free", lambda device: 1000)
    with pytest.raises(InputError, match="does not fit the free memory"):
        plan(tiny(), Terms(seconds=0.0), with_text=False)
