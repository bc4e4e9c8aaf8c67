"""The limit of backend mooncake: Mooncake's own client, without kvloop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvloop.benchmark.storage.arm import Arm
from kvloop.shared_cache.backends.mooncake.library import load_mooncake
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable


class RawMooncakeArm(Arm):
    """A client of its own; batches of keys as hex, addresses and sizes."""

    name = "Mooncake's client"

    def __init__(self, config: Mapping[str, Any], pool: HostPool) -> None:
        """Raise StorageUnavailable where the master is not there."""
        self._pool = pool
        self._sizes = [pool.shape.object_bytes]
        self._store = load_mooncake("store").MooncakeDistributedStore()
        status = self._store.setup(
            config.get("local_hostname", "127.0.0.1"),
            config.get("metadata_server", "P2PHANDSHAKE"),
            0,
            16 << 20,
            config.get("protocol", "tcp"),
            config.get("device_name", ""),
            config["master_server_address"],
        ) or self._store.register_buffer(pool.base_address, pool.num_bytes)
        if status:
            raise StorageUnavailable(f"Mooncake's client cannot be set up: {status}")

    def write(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        names, places = [key.hex() for key in keys], [self._pool.address(slot) for slot in slots]
        return sum(
            code == 0
            for code in self._store.batch_put_from(names, places, self._sizes * len(names))
        )

    def read(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        names, places = [key.hex() for key in keys], [self._pool.address(slot) for slot in slots]
        sizes = self._sizes * len(names)
        return sum(code >= 0 for code in self._store.batch_get_into(names, places, sizes))

    def forget(self, keys: Sequence[bytes]) -> None:
        self._store.batch_remove([key.hex() for key in keys], True)

    def close(self) -> None:
        self._store.close()
