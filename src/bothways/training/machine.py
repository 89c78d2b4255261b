"""The machine under a run: what it is, what its memory holds, and what a process has taken of it."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

import bothways

_CPU, _MEMORY, _STATUS = Path("/proc/cpuinfo"), Path("/proc/meminfo"), Path("/proc/self/status")
# (limit, in use) of a container: cgroup 2, then 1
_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def machine(device: torch.device | str) -> dict[str, Any]:
    """What a run's log says of the machine it went on: names, counts and versions."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "device": device.type,
        "name": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": memory_of(device),
        "system": f"{platform.system()} {platform.release()}",
        "versions": {"bothways": bothways.__version__, "python": platform.python_version(), "torch": torch.__version__},
    }


def processor() -> str:
    """The processor's name, as far as the system gives one."""
    lines = _CPU.read_text(errors="replace").splitlines() if _CPU.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def memory_of(device: torch.device) -> int | None:
    """Bytes that the device has in all; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    total = _line(_MEMORY, "MemTotal")
    return None if total is None else min([total, *(limit for limit, _ in _limits())])


def free_memory(device: torch.device) -> int | None:
    """Bytes that are still to be had on the device; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _line(_MEMORY, "MemAvailable")
    return None if free is None else max(min([free, *(limit - used for limit, used in _limits())]), 0)


def memory_in_use() -> int | None:
    """Bytes of main memory that this process holds now; None where the system does not say."""
    return _line(_STATUS, "VmRSS")


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that this process has held: of a GPU's memory for tensors, else of main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _line(path: Path, name: str) -> int | None:
    """A line `name: 123 kB` of one of the kernel's files, in bytes."""
    if not path.exists():
        return None
    rows = (line.split() for line in path.read_text().splitlines())
    return next((int(row[1]) * 1024 for row in rows if row and row[0] == f"{name}:"), None)


def _limits() -> list[tuple[int, int]]:
    """Limits of a container that are below all that can be meant, with what is in use."""
    found = []
    for limit, used in _LIMITS:
        if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit() and int(text) < 1 << 60:
            found.append((int(text), int(used.read_text())))
    return found
