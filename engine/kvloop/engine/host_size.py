"""How many pages the host pool (L2) holds, checked against the memory that is really there."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kvloop.engine.node_config import NodeConfig
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.hicache_names import HostLayout
from kvloop.shared_cache.host_layout import effective_layout, page_bytes
from kvloop.shared_cache.page_object import PageShape

_DECODE_GB = 0.5
"""Host memory that decode stages its pages in, where no flag says otherwise."""
_HEADROOM_BYTES = 256_000_000
"""What the process itself may still grow by."""
_STAGING_BYTES = 2 * (64 << 20)
"""Two storage calls of the size that one deadline is for."""
_MIN_STAGING = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSize:
    """Pools of one node."""

    layout: HostLayout
    num_slots: int
    num_staging: int
    """Slots of the object-shaped pool beside one of another layout; 0: none is needed."""


def host_size(
    config: NodeConfig, shape: PageShape, *, available: int | None, reserved: int
) -> HostSize:
    """Size the pools; raises ConfigError where they do not fit, or hold no page.

    `available`: bytes that this process may still take; None: unknown. `reserved`: those of them
    that something else will take.
    """
    layout = host_layout(config)
    each = page_bytes(shape, layout)
    num_slots = _num_slots(config, each)
    size = HostSize(
        layout=layout,
        num_slots=num_slots,
        num_staging=0 if layout == "page_first_direct" else staging_slots(shape, num_slots),
    )
    if available is not None:
        staging = size.num_staging * shape.slot_bytes
        room = max(available - reserved - _HEADROOM_BYTES, 0)
        if num_slots * each + staging > room:
            raise _too_large(config, each, num_slots, staging, room)
    return size


def host_layout(config: NodeConfig) -> HostLayout:
    """Decode's pool only stages pages for storage: it holds objects, whatever is asked."""
    if config.role == "decode":
        return "page_first_direct"
    return effective_layout(config.hicache_mem_layout, config.hicache_io_backend)


def staging_slots(shape: PageShape, num_slots: int) -> int:
    """Objects that pages of another layout are converted through on their way to and from L3."""
    return min(max(_STAGING_BYTES // shape.slot_bytes, _MIN_STAGING), num_slots)


def _num_slots(config: NodeConfig, each: int) -> int:
    if _is_by_ratio(config):
        return max(int(config.hicache_ratio * config.num_pages), 1)
    asked = config.hicache_size or _DECODE_GB
    slots = int(asked * 1e9) // each
    staged = config.offload_staging_pages or 0
    if config.role == "decode" and staged > slots:
        if config.hicache_size is None:
            return staged
        raise ConfigError(
            f"--offload-staging-pages {staged} is more than the {slots} pages of {each} bytes that "
            f"--hicache-size {asked:g} GB holds; give {math.ceil(staged * each / 1e6) / 1e3} GB, "
            "or fewer pages"
        )
    if slots < 1:
        raise ConfigError(
            f"--hicache-size {asked:g} GB holds no page of {each} bytes; "
            f"give {math.ceil(each / 1e6) / 1e3} or more"
        )
    return slots


def _is_by_ratio(config: NodeConfig) -> bool:
    return config.hicache_size is None and config.role == "prefill"


def _too_large(
    config: NodeConfig, each: int, num_slots: int, staging: int, room: int
) -> ConfigError:
    asked = f"{(num_slots * each + staging) / 1e9:.2f} GB of host memory"
    left = f"{room / 1e9:.2f} GB are left to this process"
    fitting = max(room - staging, 0)
    if _is_by_ratio(config):
        flag = f"--hicache-ratio {config.hicache_ratio:g}"
        fits, unit = fitting / each / config.num_pages, "--hicache-ratio"
    elif config.hicache_size is None and num_slots == config.offload_staging_pages:
        flag = f"--offload-staging-pages {num_slots}"
        fits, unit = fitting / each, "--offload-staging-pages"
        return ConfigError(f"{flag} asks for {asked}, but {left}; {unit} {int(fits)} would fit")
    else:
        flag = f"--hicache-size {config.hicache_size or _DECODE_GB:g}"
        fits, unit = fitting / 1e9, "--hicache-size"
    value = int(fits * 100) / 100
    advice = f"{unit} {value:g} would fit" if value else "no size fits: free memory or raise limits"
    return ConfigError(f"{flag} asks for {asked}, but {left}; {advice}")
