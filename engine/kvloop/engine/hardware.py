"""What the machine has, and how an engine process shares it."""

from __future__ import annotations

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
