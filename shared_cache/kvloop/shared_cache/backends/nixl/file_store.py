"""Pages as files that a NIXL file plugin reads and writes."""

from __future__ import annotations

from kvloop.shared_cache.backends.directory.direct import is_direct
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

_NAME = "nixl"


class NixlFileStore(DirectoryStore):
    """The directory store, with NIXL's counters beside its own."""

    def __init__(self, config: FileConfig, pool: HostPool, namespace: bytes) -> None:
        """Raise StorageUnavailable where the root cannot be had or the plugin does not start."""
        settings = file_settings(config)
        with store_faults(_NAME):
            direct = is_direct(config.direct, open_root(settings, _NAME), _NAME)
        agent = PoolAgent(config.plugin, params_of(config), pool, config.overdue_s)
        self._nixl = NixlIO(agent, pool, is_direct=direct)
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
