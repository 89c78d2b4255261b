"""Energy counters of the kernel, as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothways.training import power


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two processors, one of whose parts has a counter, too; and a clock of ten seconds a look."""
    for name, most in (("intel-rapl:0", 100), ("intel-rapl:1", 100), ("intel-rapl:0:0", 100)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text("50000000")
        (tmp_path / name / "max_energy_range_uj").write_text(str(most * 10**6))
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(power, "_COUNTERS", tmp_path)
    monkeypatch.setattr(power.time, "perf_counter", lambda: float(next(now)))
    return tmp_path


def test_watts_of_all_processors(counters: Path) -> None:
    meter = power.Meter("cpu")
    (counters / "intel-rapl:0/energy_uj").write_text("70000000")
    (counters / "intel-rapl:1/energy_uj").write_text("10000000")  # began anew at 100 J
    assert meter.watts() == pytest.approx((20 + 60) / 10)


def test_counters_that_stand_still_or_are_not_there(counters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert power.Meter("cpu").watts() is None
    monkeypatch.setattr(power, "_COUNTERS", counters / "nothing")
    assert power.Meter("cpu").watts() is None
