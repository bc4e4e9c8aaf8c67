"""This process's memory as a part of a Mooncake store."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from kvloop.shared_cache.backends.mooncake.environment import require_environment
from kvloop.shared_cache.backends.mooncake.library import load_mooncake
from kvloop.shared_cache.backends.mooncake.masters import choose_master, parse_masters
from kvloop.shared_cache.backends.mooncake.store_config import StoreConfig
from kvloop.shared_cache.storage_errors import StorageUnavailable

_JOIN_DEADLINE_S = 30.0
_RETRY_PERIOD_S = 0.5
_CLOSE_DEADLINE_S = 5.0
_SSD_DEFAULTS = {
    # The library gathers 256 MiB or 500 pages before it writes any, for a 10 s heartbeat.
    "MOONCAKE_OFFLOAD_BUCKET_SIZE_LIMIT_BYTES": str(32 << 20),
    "MOONCAKE_OFFLOAD_BUCKET_KEYS_LIMIT": "64",
    "MOONCAKE_OFFLOAD_HEARTBEAT_INTERVAL_SECONDS": "1",
    "MOONCAKE_OFFLOAD_LOCAL_BUFFER_SIZE_BYTES": str(256 << 20),
}


class Segment:
    """Mounted until `unmount`; it joins a master that comes back by itself, within seconds."""

    def __init__(self, config: StoreConfig) -> None:
        """Raise StorageUnavailable where no master lets it join."""
        if config.cluster_id:
            require_environment({"MC_STORE_CLUSTER_ID": config.cluster_id})
        module = load_mooncake("store")
        self._follows_leader = "://" in config.entry
        self._store = _mount(module, config)

    @property
    def name(self) -> str:
        """host:port, for `preferred_segments`."""
        return str(self._store.get_hostname())

    def unmount(self) -> bool:
        """Leave the master in order; False where the library hangs, as it does with a dead one.

        So it does with a leader that it found in etcd: that one gives the segment up by itself.
        """
        if self._follows_leader:
            return False
        thread = threading.Thread(target=self._store.close, daemon=True)
        thread.start()
        thread.join(_CLOSE_DEADLINE_S)
        return not thread.is_alive()


def _mount(module: Any, config: StoreConfig) -> Any:
    """Masters in HA elect for some seconds; one at an address serves at once or is not there."""
    elects_s = _JOIN_DEADLINE_S if "://" in config.entry else 0
    until = time.monotonic() + max(config.join_s, elects_s)
    while True:
        try:
            return _try_to_mount(module, config)
        except StorageUnavailable:
            if time.monotonic() >= until:
                raise
        time.sleep(_RETRY_PERIOD_S)


def _try_to_mount(module: Any, config: StoreConfig) -> Any:
    choose_master(parse_masters(config.entry), config.cluster_id)  # raises where none serves
    store = module.MooncakeDistributedStore()
    if status := store.setup(*_arguments(config), **_ssd_arguments(config)):
        raise StorageUnavailable(
            f"mounting {config.segment_bytes} bytes over {config.protocol} at master "
            f"{config.entry} failed with {status}"
        )
    return store


def _arguments(config: StoreConfig) -> tuple[Any, ...]:
    name = config.host if config.segment_port is None else f"{config.host}:{config.segment_port}"
    return (
        name,
        "P2PHANDSHAKE",
        config.segment_bytes,
        0,
        config.protocol,
        config.device_name,
        config.entry,
    )


def _ssd_arguments(config: StoreConfig) -> dict[str, Any]:
    if not config.ssd_dir:
        return {}
    for name, value in _SSD_DEFAULTS.items():
        os.environ.setdefault(name, value)
    path = Path(config.ssd_dir).absolute()
    path.mkdir(parents=True, exist_ok=True)
    return {"enable_ssd_offload": True, "ssd_offload_path": str(path)}
