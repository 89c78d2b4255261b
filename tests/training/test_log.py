"""The log and the progress display."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from bothways.errors import InputError
from bothways.training import display, log
from bothways.training.display import Display


def test_a_window_means_all_sums_over_all_counts() -> None:
    window = log.Window({"a": 1.0, "b": 2.0})
    window.add({"a": 6.0, "b": 1.0, "m": 1.0}, {"a": 2.0, "b": 1.0, "m": 4.0}, norm=1.0, tokens=10, seconds=1.0, flops=50.0)
    window.add(
        {"a": 2.0, "b": 5.0, "m": 2.0}, {"a": 6.0, "b": 2.0, "m": 0.0}, norm=3.0, tokens=20, seconds=2.0, flops=100.0, filler=10
    )
    fields = window.fields(lr=0.5, rate=300.0)
    assert fields == {
        "loss": 1.0 + 2 * 2.0,
        "terms": {"a": 1.0, "b": 2.0},
        "metrics": {"m": 0.75},
        "lr": 0.5,
        "gradient_norm": 2.0,
        "tokens_per_second": 10.0,
        "filler": 0.25,
        "gemm_share": 0.5,
        "gemm_rate": None,
    }


def test_samples_of_the_rate_are_added_up_and_forgotten_with_their_window() -> None:
    window = log.Window({"a": 1.0})
    window.add({"a": 1.0}, {"a": 1.0}, norm=1.0, tokens=1, seconds=1.0, flops=1.0)
    for sample in (100.0, None, 300.0):
        window.sampled(sample)
    assert window.fields(lr=0.5, rate=None)["gemm_rate"] == 150.0  # twice the operations over 1/100 + 1/300
    window.clear()
    window.add({"a": 1.0}, {"a": 1.0}, norm=1.0, tokens=1, seconds=1.0, flops=1.0)
    assert window.fields(lr=0.5, rate=None)["gemm_rate"] is None


def test_opening_removes_what_is_past_the_checkpoint(tmp_path: Path) -> None:
    first = log.Log(tmp_path, 0)
    for step in (1, 2, 3):
        first.write("train", step, 10 * step, 0.5, loss=1.0)
    first.close()
    second = log.Log(tmp_path, 2)
    second.write("train", 3, 31, 0.6, loss=float("inf"))
    second.close()
    assert [(line["step"], line["tokens"], line["loss"]) for line in log.read(tmp_path)] == [
        (1, 10, 1.0),
        (2, 20, 1.0),
        (3, 31, None),
    ]


@pytest.mark.parametrize("text", ["not JSON", "5", "null", '{"kind": "train"}', "\x00"])
def test_a_damaged_line_is_named(tmp_path: Path, text: str) -> None:
    good = json.dumps({"kind": "train", "step": 1, "tokens": 1, "seconds": 1})
    (tmp_path / log.NAME).write_text(f"{good}\n{text}\n{good}\n")
    with pytest.raises(InputError, match=r"log.jsonl, line 2: not a line of a training log"):
        log.Log(tmp_path, 1)
    assert (tmp_path / log.NAME).read_text() == f"{good}\n{text}\n{good}\n"


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    opened = log.Log(tmp_path, 0)
    opened.close()
    monkeypatch.setattr(opened, "_file", Full())
    with pytest.raises(InputError, match=r"cannot write .*log.jsonl: No space left on device; the checkpoints are untouched"):
        opened.write("train", 1, 1, 1.0)


def test_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "EVERY", 0.0)
    written = io.StringIO()
    with Display(Console(file=written, width=40)) as shown:
        shown.begin(total=200, done=0)
        shown.update(50, 1_000, 123_456, 2.34567, 8_123.4, 0.417)
        shown.say("[not markup]")
    first, second = written.getvalue().splitlines()
    assert first.startswith(" 25%  step 1,000  123,456 tokens  loss 2.3457  8,123 tokens/s  42% of GEMM  ")
    assert first.endswith(" left")
    assert second == "[not markup]"


def test_lines_are_not_printed_at_every_step() -> None:
    written = io.StringIO()
    with Display(Console(file=written)) as shown:
        shown.begin(total=1000, done=0)
        for step in range(1, 1001):
            shown.update(step, step, step, 1.0, None, None)
    assert written.getvalue().count("step 1,000") == 1
    assert len(written.getvalue().splitlines()) < 100


def test_a_bar_in_a_terminal() -> None:
    written = io.StringIO()
    with Display(Console(file=written, force_terminal=True, width=120)) as shown:
        shown.begin(total=200, done=0)
        shown.update(200, 1_000, 123_456, 2.34567, 8_123.4, None)
    assert "loss 2.3457  8,123 tokens/s" in written.getvalue()
    assert "100%" in written.getvalue()


@pytest.mark.parametrize(("width", "said"), [(80, False), (120, True)])
def test_a_narrow_terminal_leaves_out_the_share_of_products(width: int, said: bool) -> None:
    written = io.StringIO()
    with Display(Console(file=written, force_terminal=True, width=width)) as shown:
        shown.begin(total=200, done=0)
        shown.update(100, 1, 1, 2.0, 1.0, 0.417)
    assert ("of GEMM" in written.getvalue()) == said
    assert "1 tokens/s" in written.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0:00"), (59.6, "1:00"), (3599.0, "59:59"), (3725.0, "1:02:05")])
def test_time_left(seconds: float, text: str) -> None:
    assert display._clock(seconds) == text
