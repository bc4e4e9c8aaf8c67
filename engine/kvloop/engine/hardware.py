"""What the machine has, and how an engine process shares it."""

from __future__ import annotations

import os

import torch

from kvloop.shared_cache.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one; ConfigError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device {name!r} is not a device; use auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device {name!r} is not supported; use auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"--device {name!r}: torch sees no CUDA device; use cpu")
    return device


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
