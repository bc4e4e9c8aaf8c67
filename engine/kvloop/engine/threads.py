"""How an engine process shares the cores; imports no torch, which reads the environment once."""

from __future__ import annotations

import os


def num_usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


def engine_environment(threads: int | None) -> dict[str, str]:
    """Environment of an engine process, to be set before torch is imported there.

    Threads wait passively: two engines share the cores, and one that spins at the end of a
    parallel region takes them from the other for whole scheduler quanta (16 ms seen).
    """
    return {
        "OMP_NUM_THREADS": str(threads or num_usable_cores()),
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "0",
        "KMP_BLOCKTIME": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }
