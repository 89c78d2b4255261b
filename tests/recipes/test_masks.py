"""Masking policies in whole runs: what they need to know of the text and of the budget, and that they can be chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tests.cli.test_training import TINY, write_texts
from tests.data.packed import Text
from tests.data.test_mask_policies import broken_words, runs_of_words
from tokenizers import models

from bothways.config import override
from bothways.data.masking import DISTILBERT, Masked, Masking
from bothways.data.source import open_source
from bothways.data.tokenizer import Tokenizer, bert_template
from bothways.errors import InputError
from bothways.objectives.masked_lm import MaskedInputs
from bothways.recipes import pretraining
from bothways.recipes.corpus import Opened
from bothways.recipes.masks import scheduled, vocabulary_of
from bothways.recipes.pretraining import check, prepare_samples, prepare_shards, prepare_tokenizer, pretrain, set_up
from bothways.recipes.published import RECIPES
from bothways.recipes.runs import GivenTokenizer, Pretraining, Staged
from bothways.recipes.staged import override_run, pretrain_stages
from bothways.training import log, record
from bothways.training.schedule import Steps, Tokens

UNITS = {
    "whole_words": '{"type": "whole_words", "replaced": "together"}',
    "spans": '{"type": "spans"}',
    "n_grams": '{"type": "n_grams"}',
    "windows": '{"type": "windows"}',
    "by_frequency": '{"type": "by_frequency"}',
}


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine takes a second each time, and nothing here is about it."""
    monkeypatch.setattr(pretraining, "gemm_rate", lambda *_: 1e10)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts")


def run_of(texts: Path, *changes: str, steps: int = 2) -> Pretraining:
    run = RECIPES["bert"](open_source(texts), Steps(count=steps), "toy")
    assert isinstance(run, Pretraining)
    return override(run, [*TINY, "training.log_every=1", *changes])


def masked(folder: Path) -> list[float]:
    """The share of tokens to be predicted in each step."""
    return [line["metrics"]["masked"] for line in log.read(folder) if line["kind"] == "train"]


@pytest.mark.slow
@pytest.mark.parametrize("name", UNITS)
def test_a_run_by_each_policy(texts: Path, tmp_path: Path, name: str) -> None:
    run = run_of(texts, f"masking.units={UNITS[name]}", "masking.copies=4", "masking.at_most=20")
    said: list[str] = []
    pretrain(run, tmp_path / "run", said.append)
    assert ("counting how often each token occurs" in said) == (name == "by_frequency")
    assert all(0.1 < share < 0.2 for share in masked(tmp_path / "run"))
    again = pretrain(run, tmp_path / "run")  # a finished run is recognised as the same
    assert again.result.step == 2


@dataclass(frozen=True)
class Read(Text):
    """The samples of a run, masked by the objective that is assembled for it; words begin where the tokenizer writes no ##."""

    run: Pretraining
    tokenizer: Tokenizer
    opened: tuple[Opened, ...]

    @classmethod
    def of(cls, run: Pretraining, folder: Path) -> Read:
        tokenizer = prepare_tokenizer(run, folder, print)
        opened = prepare_shards(run, folder, tokenizer, print)
        data = prepare_samples(run, tokenizer, opened, print).data
        ids = np.concatenate([data[number].sequences[0] for number in range(len(data))])
        return cls(ids, data.lengths, np.arange(len(data)), run, tokenizer, opened)

    def masked(self, masking: Masking, seed: int = 0, epoch: int = 0) -> Masked:
        parts = set_up(replace(self.run, masking=masking), self.tokenizer, self.opened, "cpu", print)
        inputs = parts.objective.prepare([parts.text.data[number] for number in range(len(self.samples))], seed, epoch)
        assert isinstance(inputs, MaskedInputs)
        return Masked(inputs.batch.ids.numpy(), inputs.rows.numpy(), inputs.labels.numpy())

    @property
    def words(self) -> np.ndarray:
        inner = np.array([str(self.tokenizer.backend.id_to_token(i)).startswith("##") for i in self.ids.tolist()])
        return np.cumsum(~inner | np.isin(np.roll(self.ids, 1), [*self.tokenizer.special_ids])) - 1


CLUSTERED: dict[str, Callable[[Text, Masking], bool]] = {
    "whole_words": lambda text, masking: broken_words(text, masking) == 0.0,
    "spans": lambda text, masking: 3.0 < runs_of_words(text, masking).mean() < 4.5,
    "n_grams": lambda text, masking: 1.5 < runs_of_words(text, masking).mean() < 2.0,
}


@pytest.mark.parametrize("name", CLUSTERED)
def test_the_objective_of_a_run_masks_by_its_policy(texts: Path, tmp_path: Path, name: str) -> None:
    """The published run of GottBERT lost its whole words on the way from its settings to what masks, and nothing told of it."""
    (tmp_path / "long").mkdir()
    for file in ("a.txt", "b.txt"):  # one to learn from, one to measure on
        (tmp_path / "long" / file).write_text(" ".join(path.read_text() for path in sorted(texts.iterdir()) * 20))
    lengths = [f"{field}=2048" for field in ("encoder.max_length", "max_length", "batching.tokens")]
    changes = ("tokenizer.vocab_size=40", "masking.rate=0.05", *lengths)  # few of a policy's units meet, or are cut
    run, off = (run_of(tmp_path / "long", *changes, f"masking.units={units}") for units in (UNITS[name], "null"))
    read = Read.of(run, tmp_path / "run")
    assert len(read.ids) > 2 * read.words[-1], "words have several pieces"
    assert CLUSTERED[name](read, run.masking)
    assert not CLUSTERED[name](read, off.masking)


def test_rows_of_every_batch(texts: Path, tmp_path: Path) -> None:
    pretrain(run_of(texts, 'masking.count={"type": "per_batch", "rows": 40}'), tmp_path / "run")
    lines = [line for line in log.read(tmp_path / "run") if line["kind"] == "train"]
    tokens = np.diff([line["tokens"] for line in lines], prepend=0)
    assert [round(line["metrics"]["masked"] * count) for line, count in zip(lines, tokens, strict=True)] == [40, 40]


def test_every_token_is_counted(texts: Path, tmp_path: Path) -> None:
    run = run_of(texts)
    tokenizer = prepare_tokenizer(run, tmp_path, print)
    shards = prepare_shards(run, tmp_path, tokenizer, print)
    counts = vocabulary_of(DISTILBERT, tokenizer, shards, print).counts
    assert counts is not None
    ids = np.concatenate(tokenizer.encode([path.read_text() for path in sorted(texts.iterdir())], specials=False))
    np.testing.assert_array_equal(counts, np.bincount(ids, minlength=tokenizer.vocab_size))


def test_a_rate_falls_within_the_budget(texts: Path, tmp_path: Path) -> None:
    line = 'masking.schedule={"type": "line", "to": 0.1}'
    run = run_of(texts, "masking.rate=0.5", line, steps=12)
    pretrain(run, tmp_path / "run")
    rates = masked(tmp_path / "run")
    expected = 0.5 - 0.4 * np.arange(12) / 12
    np.testing.assert_allclose(rates, expected, atol=0.05)


def test_a_rate_falls_within_each_stage(texts: Path, tmp_path: Path) -> None:
    made = RECIPES["modernbert"](open_source(texts), Steps(count=12), "toy")
    line = '{"type": "line", "to": 0.1}'
    changes = ["masking.rate=0.6", f"masking.schedule={line}", "training.log_every=1", "batching.tokens=512"]
    run = override_run(made, changes)
    assert isinstance(run, Staged)
    pretrain_stages(run, tmp_path / "run")
    for folder in run.folders:
        rates = masked(tmp_path / "run" / folder)
        assert rates[0] > 0.5
        assert rates == sorted(rates, reverse=True)
        assert len(rates) == 1 or rates[-1] < 0.45
    report = (tmp_path / "run" / "report.html").read_text()
    assert "60% to 10%" in report


def test_a_budget_in_tokens_or_steps_says_where_a_schedule_ends(texts: Path, tmp_path: Path) -> None:
    line = 'masking.schedule={"type": "line", "to": 0.1}'
    steps = run_of(texts, line, "training.accumulate=3", 'training.ramp={"type": "equal_updates", "updates": 2}', steps=8)
    tokenizer = prepare_tokenizer(steps, tmp_path, print)
    text = prepare_samples(steps, tokenizer, prepare_shards(steps, tmp_path, tokenizer, print), print)
    found = scheduled(steps, text).schedule
    assert found is not None
    batches = pretraining.Loader(text.data, steps.batching, lambda *_: None, 0).plan.epoch(0).fill
    assert found.tokens == round((1 + 1 + 2 + 2 + 3 * 4) * batches.tokens / batches.batches)
    tokens = override(steps, ['training.budget={"type": "tokens", "count": 12345}'])
    found = scheduled(tokens, text).schedule
    assert found is not None
    assert found.tokens == 12345
    hours = override(steps, ['training.budget={"type": "hours", "hours": 1}'])
    check(hours)
    assert scheduled(hours, text) == hours.masking
    elapsed = override(steps, ['training.budget={"type": "elapsed", "hours": 1}'])
    with pytest.raises(InputError, match=r"set masking\.schedule\.tokens"):
        check(elapsed)
    check(override(elapsed, ["masking.schedule.tokens=1000"]))


@pytest.mark.slow
def test_a_rate_falls_within_hours(texts: Path, tmp_path: Path) -> None:
    """The tokens that hours come to are frozen in the run's record; stopped and gone on with, the masks are the same."""
    run = run_of(texts, "masking.rate=0.5", 'masking.schedule={"type": "line", "to": 0.1}', "training.checkpoint_every=1")
    run = override(run, ['training.budget={"type": "hours", "hours": 0.001}'])
    pretrain(run, tmp_path / "run")
    known = record.read(tmp_path / "run")
    assert known is not None
    assert isinstance(known.budget, Tokens)
    lines = [line for line in log.read(tmp_path / "run") if line["kind"] == "train"]
    before = np.array([0, *(line["tokens"] for line in lines[:-1])])
    expected = 0.5 - 0.4 * np.minimum(before / known.budget.count, 1.0)
    np.testing.assert_allclose([line["metrics"]["masked"] for line in lines], expected, atol=0.05)


def test_a_tokenizer_without_words_is_refused_before_training(texts: Path, tmp_path: Path) -> None:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz "]
    backend = tokenizers.Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="[UNK]"))
    backend.add_special_tokens(names[:5])
    backend.post_processor = bert_template(2, 3)
    Tokenizer(backend).save(tmp_path / "bare")
    run = run_of(texts, f"masking.units={UNITS['spans']}")
    with pytest.raises(InputError, match="do not say where words begin"):
        pretrain(replace(run, tokenizer=GivenTokenizer(folder=str(tmp_path / "bare"))), tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()
