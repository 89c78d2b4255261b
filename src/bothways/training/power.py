"""What the machine draws, where it says so: the processor's own energy counters (Linux), or the GPU's sensor."""

from __future__ import annotations

import time
from pathlib import Path

import torch

_COUNTERS = Path("/sys/class/powercap")


class Meter:
    """Reads at its making and at its end; `watts` is the mean between. Processors count their own energy alone."""

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._begin, self._at = _joules(), time.perf_counter()

    def watts(self) -> float | None:
        """None where nothing says."""
        if self._device.type == "cuda":
            return _of_gpu(self._device)
        seconds = time.perf_counter() - self._at
        used = [(end - begin) % (most + 1e-6) for (begin, most), (end, _) in zip(self._begin, _joules(), strict=True)]
        return sum(used) / seconds if used and sum(used) > 0 else None


def _joules() -> list[tuple[float, float]]:
    """What each processor's counter shows, and where it begins anew."""
    found = []
    for place in sorted(_COUNTERS.glob("intel-rapl:?")):  # whole processors; their parts have a second number
        try:
            found.append(tuple(int((place / name).read_text()) / 1e6 for name in ("energy_uj", "max_energy_range_uj")))
        except (OSError, ValueError):  # mostly the administrator alone may read them
            return []
    return found


def _of_gpu(device: torch.device) -> float | None:
    try:
        return torch.cuda.power_draw(device) / 1000
    except Exception:  # the sensor is read through a package that need not be there, whose failures are its own
        return None
