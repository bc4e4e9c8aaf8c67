"""Page files on a 3FS mount, moved by rings or by POSIX calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kvloop.shared_cache.backends.directory.page_io import PageIO
from kvloop.shared_cache.backends.directory.store import DirectorySettings, DirectoryStore
from kvloop.shared_cache.backends.directory.thread_io import ThreadIO
from kvloop.shared_cache.backends.hf3fs.config import Hf3fsConfig
from kvloop.shared_cache.backends.hf3fs.mount import require_mount
from kvloop.shared_cache.backends.hf3fs.records import Records
from kvloop.shared_cache.backends.hf3fs.ring import RingSettings
from kvloop.shared_cache.backends.hf3fs.settled_io import SettledIO
from kvloop.shared_cache.backends.hf3fs.usrbio_io import UsrbioIO
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable


class Hf3fsStore(DirectoryStore):
    """One namespace on a mount."""

    def __init__(
        self,
        config: Hf3fsConfig,
        root: Path,
        rings: RingSettings,
        usrbio: Any | None,
        pool: HostPool,
        namespace: bytes,
    ) -> None:
        """Raise StorageUnavailable where the mount, or /dev/shm for the rings, cannot be had."""
        try:
            require_mount(Path(rings.mount), config.require_mount)
            io = _mover(config, rings, usrbio, pool)
        except OSError as error:
            raise StorageUnavailable(f"storage backend 'hf3fs': {error}") from error
        settings = DirectorySettings(
            root=root,
            num_threads=config.num_threads,
            files_at_once=max(64, config.numjobs * config.entries),
        )
        settled = SettledIO(io, config.num_threads)
        try:
            super().__init__(settings, pool, namespace, settled, name="hf3fs")
        except BaseException:
            settled.close()
            raise
        self._small = Records(self._layout, self._drafts)


def _mover(config: Hf3fsConfig, rings: RingSettings, usrbio: Any | None, pool: HostPool) -> PageIO:
    if usrbio is None:
        return ThreadIO(pool, num_threads=config.numjobs, is_direct=True, name="l3-hf3fs-io")
    return UsrbioIO(usrbio, rings, config.numjobs, pool)
