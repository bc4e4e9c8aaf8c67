"""Pages as files that a NIXL file plugin reads and writes."""

from __future__ import annotations

from kvloop.shared_cache.backends.directory.direct import can_do_direct
from kvloop.shared_cache.backends.directory.store import (
    DirectorySettings,
    DirectoryStore,
    open_root,
    store_faults,
)
from kvloop.shared_cache.backends.nixl.agent import PoolAgent
from kvloop.shared_cache.backends.nixl.config import FileConfig, params_of
from kvloop.shared_cache.backends.nixl.file_io import NixlIO
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.safe_path import checked_root
from kvloop.shared_cache.storage_errors import StorageUnavailable

_NAME = "nixl"


class NixlFileStore(DirectoryStore):
    """The directory store, with NIXL's counters beside its own."""

    def __init__(self, config: FileConfig, pool: HostPool, namespace: bytes) -> None:
        """Raise StorageUnavailable where the root cannot be had or the plugin does not start."""
        settings = file_settings(config)
        is_direct = _is_direct(config, settings)
        agent = PoolAgent(config.plugin, params_of(config), pool, config.overdue_s)
        self._nixl = NixlIO(agent, pool, is_direct=is_direct)
        try:
            super().__init__(settings, pool, namespace, self._nixl, name=_NAME)
        except BaseException:
            self._nixl.close()
            raise

    def stats(self) -> dict[str, float]:
        counts = {"plain_objects": self._nixl.num_plain, "overdue": self._nixl.num_overdue}
        return super().stats() | {name: float(count) for name, count in counts.items()}


def file_settings(config: FileConfig) -> DirectorySettings:
    """Where the files lie; raises ConfigError naming the field that is wrong."""
    mount_point = config.mount_point
    return DirectorySettings(
        root=checked_root("root", config.root),
        mount_point=None if mount_point is None else checked_root("mount_point", mount_point),
        capacity_bytes=config.capacity_bytes,
        files_at_once=config.files_at_once,
    )


def _is_direct(config: FileConfig, settings: DirectorySettings) -> bool:
    root = open_root(settings, _NAME)
    if config.direct == "off":
        return False
    with store_faults(_NAME), root.open() as opened:
        is_able = can_do_direct(opened)
    if config.direct == "on" and is_able is False:
        raise StorageUnavailable(
            f"storage backend {_NAME!r}: direct is 'on', but the file system of {config.root} does "
            "not take O_DIRECT; set it to 'auto' or 'off'"
        )
    return config.direct == "on" or bool(is_able)
