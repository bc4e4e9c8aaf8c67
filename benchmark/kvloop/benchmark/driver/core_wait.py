"""How long this process's main thread waited for a core: others had it, or a CPU limit."""

from __future__ import annotations

from pathlib import Path

_SCHEDSTAT = Path("/proc/self/schedstat")
"""Nanoseconds run, nanoseconds waited while it could have run, times it ran."""


def core_wait_s() -> float | None:
    """Since the process began; None where the system does not tell."""
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def wait_share(before_s: float | None, after_s: float | None, duration_s: float) -> float | None:
    """Of the time between; None where the system does not tell."""
    if before_s is None or after_s is None or duration_s <= 0:
        return None
    return (after_s - before_s) / duration_s
