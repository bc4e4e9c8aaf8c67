"""Pages as files under one root: a local disk, NFS, or any POSIX file system that nodes share."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from kvloop.shared_cache.backends.directory.direct import is_direct
from kvloop.shared_cache.backends.directory.file_system import file_system_type, is_local
from kvloop.shared_cache.backends.directory.store import (
    DirectorySettings,
    DirectoryStore,
    open_root,
    store_faults,
)
from kvloop.shared_cache.backends.directory.thread_io import ThreadIO
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.safe_path import checked_root

_NAME = "file"
_FILES_AT_ONCE = 64
_MAX_ROUNDS_AT_ONCE = 8
_ROUND_BYTES = 8 << 20  # of smaller rounds the threads' own work would be the most
_NUM_SPARES = 64
_FOR_SPARES = frozenset({"ext4", "xfs"})  # others gain nothing by room that is found ahead


class FileConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The extra config of `file`."""

    root: Annotated[str, msgspec.Meta(min_length=1)]
    """Directory; made where it is missing."""
    num_threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    """Files read or written at once; where the file system is not local also opened at once."""
    capacity_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Of all pages under the root together, of all namespaces; without it there is no bound."""
    direct: Literal["auto", "on", "off"] = "auto"
    """Past the page cache (O_DIRECT); auto: where the file system can."""
    mount_point: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    """Where set, the store is unavailable while nothing is mounted there."""

    def check_paths(self) -> None:
        """Raise ConfigError naming the field that is no path to be used."""
        checked_root("root", self.root)
        if self.mount_point is not None:
            checked_root("mount_point", self.mount_point)


class FileBackend(DirectoryStore):
    """See the module."""

    def __init__(self, config: FileConfig, pool: HostPool, namespace: bytes) -> None:
        """Raise StorageUnavailable where the root cannot be had."""
        root = checked_root("root", config.root)
        mount_point = config.mount_point and checked_root("mount_point", config.mount_point)
        file_system = file_system_type(root)
        settings = DirectorySettings(
            root=root,
            mount_point=mount_point or None,
            capacity_bytes=config.capacity_bytes,
            files_at_once=_FILES_AT_ONCE,
            rounds_at_once=_rounds_at_once(pool.shape.object_bytes),
            num_spares=_NUM_SPARES if file_system in _FOR_SPARES else 0,
            num_threads=1 if is_local(file_system) else config.num_threads,
        )
        with store_faults(_NAME):
            direct = is_direct(config.direct, open_root(settings, _NAME), _NAME)
        io = ThreadIO(pool, num_threads=config.num_threads, is_direct=direct)
        super().__init__(settings, pool, namespace, io, name=_NAME)


def _rounds_at_once(object_bytes: int) -> int:
    return min(max(_FILES_AT_ONCE * object_bytes // _ROUND_BYTES, 1), _MAX_ROUNDS_AT_ONCE)
