"""The limit of backend mooncake: Mooncake's own client, without kvloop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kvloop.benchmark.storage.arm import Arm
from kvloop.shared_cache.backend_config import parse_backend_config
from kvloop.shared_cache.backends.mooncake.config import MooncakeConfig
from kvloop.shared_cache.backends.mooncake.connection import connect
from kvloop.shared_cache.host_pool import HostPool


class RawMooncakeArm(Arm):
    """A client of its own, set up as the backend's: the same master, protocol and copies."""

    name = "Mooncake's client"

    def __init__(self, config: Mapping[str, Any], pool: HostPool) -> None:
        """Raise StorageUnavailable where the master is not there."""
        self._pool = pool
        self._sizes = [pool.shape.object_bytes]
        fields = parse_backend_config("mooncake", config, MooncakeConfig)
        connection = connect(msgspec.structs.replace(fields, global_segment_size=0), pool)
        self._store, self._placement = connection.store, connection.placement

    def write(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        names, places = [key.hex() for key in keys], [self._pool.address(slot) for slot in slots]
        sizes = self._sizes * len(names)
        codes = self._store.batch_put_from(names, places, sizes, self._placement)
        return sum(code == 0 for code in codes)

    def read(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        names, places = [key.hex() for key in keys], [self._pool.address(slot) for slot in slots]
        sizes = self._sizes * len(names)
        return sum(code >= 0 for code in self._store.batch_get_into(names, places, sizes))

    def forget(self, keys: Sequence[bytes]) -> None:
        self._store.batch_remove([key.hex() for key in keys], True)

    def close(self) -> None:
        self._store.close()
