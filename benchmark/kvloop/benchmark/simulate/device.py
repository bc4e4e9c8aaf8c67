"""What is known of devices: their data sheets, and how much of that is reached."""

from __future__ import annotations

from dataclasses import dataclass

from kvloop.shared_cache.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator, or one machine without any. docs/simulate.md has each number's source."""

    name: str
    flops: float
    """Dense, of the weights' type, a second."""
    memory_bytes_per_s: float
    memory_gib: float
    pcie_bytes_per_s: float
    """What one large copy between it and host memory reaches."""
    flops_share: float = 0.5
    """Of `flops`, in prefill steps that are large."""
    memory_share: float = 0.7
    """Of `memory_bytes_per_s`, reading weights and, in decode, KV."""
    context_share: float = 0.065
    """Of `memory_bytes_per_s`, reading a prefill step's context from its pages."""
    pcie_share: float = 0.92
    """Of `pcie_bytes_per_s`, moving pages."""
    floor_s: float = 0.017
    """A step takes no less: its kernels are launched one by one."""
    usable_share: float = 0.85
    """Of `memory_gib`, for weights and KV."""
    chunk_tokens: int = 2048
    enough_tokens: int | None = None
    """A prefill step with so many takes no further prompt; None: `chunk_tokens`."""
    max_running: int = 256
    is_shared: bool = False
    """Whether all nodes of the cluster compute on this one device."""


DEVICES = {
    device.name: device
    for device in (
        Device(
            name="h100",
            flops=989e12,
            memory_bytes_per_s=3.35e12,
            memory_gib=80 * 1e9 / 2**30,
            pcie_bytes_per_s=55e9,
        ),
        Device(
            name="h200",
            flops=989e12,
            memory_bytes_per_s=4.8e12,
            memory_gib=141 * 1e9 / 2**30,
            pcie_bytes_per_s=55e9,
        ),
        Device(
            name="a100",
            flops=312e12,
            memory_bytes_per_s=2.039e12,
            memory_gib=80 * 1e9 / 2**30,
            pcie_bytes_per_s=25e9,
        ),
        Device(
            name="l40s",
            flops=362e12,
            memory_bytes_per_s=0.864e12,
            memory_gib=48 * 1e9 / 2**30,
            pcie_bytes_per_s=25e9,
        ),
        Device(
            name="cpu2",
            flops=200e9,
            memory_bytes_per_s=20e9,
            memory_gib=8.0,
            pcie_bytes_per_s=4e9,
            context_share=0.7,
            floor_s=0.01,
            chunk_tokens=512,
            enough_tokens=128,
            max_running=16,
            is_shared=True,
        ),
    )
}


def find_device(name: str) -> Device:
    """Raises ConfigError naming those that are known."""
    if name not in DEVICES:
        known = ", ".join(DEVICES)
        raise ConfigError(f"--device {name}: neither a file that was calibrated nor one of {known}")
    return DEVICES[name]
