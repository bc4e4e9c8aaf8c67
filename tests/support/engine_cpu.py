"""CPU seconds of a running engine: all of its threads, and the loop's alone."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_CPUCLOCK_SCHED = 2
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class EngineCpu:
    """Seconds since the process began."""

    process_s: float
    """All threads, those that have ended too."""
    loop_s: float
    """The main thread: it turns the loop, and computes beside torch's own threads."""

    def __sub__(self, other: EngineCpu) -> EngineCpu:
        return EngineCpu(
            process_s=self.process_s - other.process_s, loop_s=self.loop_s - other.loop_s
        )


def engine_cpu(pid: int) -> EngineCpu:
    """Of a process now; to the nanosecond where the kernel tells."""
    return EngineCpu(process_s=_process_s(pid), loop_s=_main_thread_s(pid))


def _process_s(pid: int) -> float:
    # The kernel's clock id of another process's CPU time: clock_getcpuclockid(3).
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def _main_thread_s(pid: int) -> float:
    task = Path(f"/proc/{pid}/task/{pid}")
    schedule = task / "schedstat"
    if schedule.exists():
        return int(schedule.read_text().split()[0]) / 1e9
    fields = (task / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
