"""What the driver runs on, in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe_machine() -> str:
    """Such as `2 cores, AMD EPYC Processor, 23 GiB, Linux x86_64 (the driver's machine)`.

    In a container with a CPU limit: `64 cores of which 2 may be used, ...`.
    """
    parts = [_cores(), _cpu_name(), _memory()]
    parts.append(f"{platform.system()} {platform.machine()} (the driver's machine)")
    return ", ".join(part for part in parts if part)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cores() -> str:
    cores, limit = _num_cores(), _cpu_limit()
    words = f"{cores} cores"
    return words if limit is None or limit >= cores else f"{words} of which {limit:g} may be used"


def _cpu_limit() -> float | None:
    """Cores' worth of time that the container has; None without a limit."""
    for line in _lines("/sys/fs/cgroup/cpu.max"):  # such as "200000 100000", or "max 100000"
        quota, _, period = line.partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            return int(quota) / int(period)
    return None


def _cpu_name() -> str:
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor()


def _memory() -> str:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal:"):
            return f"{int(line.split()[1]) / (1 << 20):.0f} GiB"
    return ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
