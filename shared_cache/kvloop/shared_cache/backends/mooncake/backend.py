"""Pages in a Mooncake store: zero-copy between its segments and the registered host pool."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Annotated, Any, Literal

import msgspec

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.backends.mooncake.library import load_mooncake
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import object_name
from kvloop.shared_cache.storage_errors import StorageUnavailable

_NO_ROOM = -200
_TOO_LARGE = -600
_REPLICA_NOT_READY = -703
_NOT_FOUND = -704
_RPC_FAIL = -900
_MISSES = {_NOT_FOUND, _REPLICA_NOT_READY, _TOO_LARGE}
_CONNECT_TIMEOUT_S = 1.0


class MooncakeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The extra config of `mooncake`; the names are SGLang's."""

    master_server_address: Annotated[str, msgspec.Meta(pattern=r"^[^/\s]+:\d+$")]
    """host:port of the master."""
    metadata_server: str = "P2PHANDSHAKE"
    protocol: Literal["tcp", "rdma"] = "tcp"
    device_name: str = ""
    """RDMA devices, comma-separated; empty: all."""
    local_hostname: str = "127.0.0.1"
    """Under which other clients reach this one."""
    global_segment_size: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Bytes of this process's memory given to the store; 0: a client only."""
    local_buffer_size: Annotated[int, msgspec.Meta(ge=1 << 20)] = 16 << 20
    """Bytes for small records in flight."""
    replica_num: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Copies of each object, on as many segments."""


class MooncakeBackend(StorageBackend):
    """See the module.

    A put whose key another writer has begun and not finished counts as done: the first put wins,
    and the master drops it after 30 s if that writer died.
    """

    def __init__(self, config: MooncakeConfig, pool: HostPool, namespace: bytes) -> None:
        """Raise StorageUnavailable where the master cannot be reached."""
        module = load_mooncake("store")
        _require_listener(config.master_server_address)
        self._pool = pool
        self._namespace = namespace
        self._prefix = f"kvl1-{namespace.hex()}-"
        self._replicas = module.ReplicateConfig()
        self._replicas.replica_num = config.replica_num
        self._lock = threading.Lock()
        self._stats = dict.fromkeys(("gets", "sets", "no_room", "misfits", "failed_keys"), 0.0)
        self._store = _connect(module, config)
        if status := self._store.register_buffer(pool.base_address, pool.num_bytes):
            self._store.close()
            raise StorageUnavailable(
                f"storage backend 'mooncake': registering {pool.num_bytes} bytes of host memory "
                f"failed with {status}"
            )

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        codes = self._store.batch_is_exist(self._names(keys))
        self._check("exists", codes)
        return self._by_key(code == 1 for code in codes)

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        names, addresses, sizes = self._objects(keys, slots)
        codes = self._store.batch_get_into(names, addresses, sizes)
        self._check("get", codes)
        self._count("gets", len(keys))
        self._remove_misfits(names, codes)
        return self._by_key(code == self._pool.shape.object_bytes for code in codes)

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        names, addresses, sizes = self._objects(keys, slots)
        codes = self._store.batch_put_from(names, addresses, sizes, self._replicas)
        self._check("set", codes)
        self._count("sets", len(keys))
        self._count("no_room", sum(code == _NO_ROOM for code in codes))
        return self._by_key(code == 0 for code in codes)

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        codes = self._store.batch_remove(self._names(keys), True)
        self._check("delete", codes)
        groups = self._pool.shape.head_groups
        return [0 in codes[i : i + groups] for i in range(0, len(codes), groups)]

    def put_small(self, name: str, value: bytes) -> bool:
        # The store gives b"" for what it has not, so that no record may be empty.
        status = self._store.upsert(self._small_name(name), b"\x01" + value, self._replicas)
        self._check("put_small", [status])
        return bool(status == 0)

    def get_small(self, name: str) -> bytes | None:
        self._check("get_small", [self._store.is_exist(self._small_name(name))])
        value: bytes = self._store.get(self._small_name(name))
        return value[1:] if value else None

    def stats(self) -> dict[str, float]:
        with self._lock:
            return dict(self._stats)

    def clear(self) -> None:
        self._check("clear", [self._store.remove_by_regex(f"^{self._prefix}.*", True)])

    def close(self) -> None:
        self._store.close()

    def _objects(
        self, keys: Sequence[bytes], slots: Sequence[int]
    ) -> tuple[list[str], list[int], list[int]]:
        assert len(keys) == len(slots), (len(keys), len(slots))
        groups = range(self._pool.shape.head_groups)
        addresses = [self._pool.address(slot, group) for slot in slots for group in groups]
        return self._names(keys), addresses, [self._pool.shape.object_bytes] * len(addresses)

    def _names(self, keys: Sequence[bytes]) -> list[str]:
        groups = range(self._pool.shape.head_groups)
        return [object_name(self._namespace, key, group) for key in keys for group in groups]

    def _small_name(self, name: str) -> str:
        return f"{self._prefix}small-{hashlib.sha256(name.encode()).hexdigest()}"

    def _remove_misfits(self, names: Sequence[str], codes: Sequence[int]) -> None:
        """Objects of another size are in the way of good ones, since the first put wins."""
        size = self._pool.shape.object_bytes
        misfits = [
            name
            for name, code in zip(names, codes, strict=True)
            if code == _TOO_LARGE or (code >= 0 and code != size)
        ]
        if misfits:
            self._count("misfits", len(misfits))
            self._store.batch_remove(misfits, True)

    def _by_key(self, found: Iterable[bool]) -> list[bool]:
        """Whether all objects of a key were found, key by key."""
        objects = iter(found)
        groups = self._pool.shape.head_groups
        return [all(page) for page in iter(lambda: list(islice(objects, groups)), [])]

    def _check(self, call: str, codes: Sequence[int]) -> None:
        """Raise where the master is gone or nothing at all works.

        A single key may fail alone, when the segment that held it died; that is a miss.
        """
        faults = [code for code in codes if code < 0 and code not in _MISSES and code != _NO_ROOM]
        if not faults:
            return
        self._count("failed_keys", len(faults))
        if _RPC_FAIL in faults or len(faults) == len(codes):
            raise StorageUnavailable(f"storage backend 'mooncake': {call} failed with {faults[0]}")

    def _count(self, name: str, n: int) -> None:
        with self._lock:
            self._stats[name] += n


def _require_listener(address: str) -> None:
    """Fail at once where nothing listens: the client library would take seconds to say so."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise StorageUnavailable(
            f"storage backend 'mooncake': no master at {address}: {error}"
        ) from error


def _connect(module: Any, config: MooncakeConfig) -> Any:
    store = module.MooncakeDistributedStore()
    status = store.setup(
        config.local_hostname,
        config.metadata_server,
        config.global_segment_size,
        config.local_buffer_size,
        config.protocol,
        config.device_name,
        config.master_server_address,
    )
    if status:
        raise StorageUnavailable(
            f"storage backend 'mooncake': setup with master {config.master_server_address} over "
            f"{config.protocol} failed with {status}"
        )
    return store
