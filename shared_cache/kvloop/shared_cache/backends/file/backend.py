"""Pages as files under one root: a local disk, NFS, or any POSIX file system that nodes share."""

from __future__ import annotations

from typing import Annotated

import msgspec

from kvloop.shared_cache.backends.directory.store import DirectorySettings, DirectoryStore
from kvloop.shared_cache.backends.directory.thread_io import ThreadIO
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.safe_path import checked_root


class FileConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The extra config of `file`."""

    root: Annotated[str, msgspec.Meta(min_length=1)]
    """Directory; made where it is missing."""
    capacity_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Of all pages under the root together, of all namespaces; without it there is no bound."""
    num_threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    """Files read or written at once."""


class FileBackend(DirectoryStore):
    """See the module."""

    def __init__(self, config: FileConfig, pool: HostPool, namespace: bytes) -> None:
        """Raise StorageUnavailable where the root cannot be made or written."""
        settings = DirectorySettings(
            root=checked_root("root", config.root), capacity_bytes=config.capacity_bytes
        )
        io = ThreadIO(pool, num_threads=config.num_threads, is_direct=False)
        super().__init__(settings, pool, namespace, io, name="file")
