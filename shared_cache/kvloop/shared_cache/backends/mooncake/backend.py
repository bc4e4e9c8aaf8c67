"""Pages in a Mooncake store: zero-copy between its segments and the registered host pool."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.backends.mooncake import codes as meaning
from kvloop.shared_cache.backends.mooncake.admin import MasterAdmin
from kvloop.shared_cache.backends.mooncake.config import MooncakeConfig
from kvloop.shared_cache.backends.mooncake.connection import connect
from kvloop.shared_cache.backends.mooncake.library import trim_memory
from kvloop.shared_cache.backends.mooncake.names import Names, stored_object
from kvloop.shared_cache.backends.mooncake.records import Records
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import (
    StorageRejected,
    StorageUnavailable,
    StorageUnsupported,
)

_DEFAULT_TENANT = "default"
_CLEAR_TRIES = 10
_COUNTED = ("gets", "sets", "no_room", "misfits", "failed_keys")


class MooncakeBackend(StorageBackend):
    """See the module.

    A put whose key another writer has begun and not finished counts as done: the first put wins,
    and the master drops it after 30 s if that writer died. Pages on a store node that died are
    misses, and each batch that asks for some takes up to a second, until the master has given the
    node up.
    """

    def __init__(self, config: MooncakeConfig, pool: HostPool, namespace: bytes) -> None:
        """Raise StorageUnavailable where the master cannot be reached."""
        self._config = config
        self._pool = pool
        self._groups = pool.shape.head_groups
        self._object_bytes = pool.shape.object_bytes
        self._names = Names(namespace, self._groups)
        self._lock = threading.Lock()
        self._store, self._placement, record_placement, master_index = connect(config, pool)
        self._records = Records(self._store, record_placement, self._check)
        self._stats = dict.fromkeys(_COUNTED, 0.0) | {"master_index": float(master_index)}

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        codes = self._store.batch_is_exist(self._names.of_pages(keys))
        self._check("exists", codes)
        return self._by_key([code == 1 for code in codes])

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        if len(set(keys)) < len(keys):
            return self._one_of_each(self.get, keys, slots)
        names, addresses, sizes = self._objects(keys, slots)
        codes = self._store.batch_get_into(names, addresses, sizes)
        self._check("get", codes)
        self._count("gets", len(keys))
        found = [code == self._object_bytes for code in codes]
        if not all(found):
            self._remove_misfits(names, codes)
        return self._by_key(found)

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        if len(set(keys)) < len(keys):
            return self._one_of_each(self.set, keys, slots)
        names, addresses, sizes = self._objects(keys, slots)
        codes = self._store.batch_put_from(names, addresses, sizes, self._placement)
        self._check("set", codes)
        self._count("sets", len(keys))
        self._count("no_room", sum(code in meaning.NO_ROOM for code in codes))
        return self._by_key([code == 0 for code in codes])

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        # By force: a page that was read a moment ago is leased, and would stay.
        codes = self._store.batch_remove(self._names.of_pages(keys), True)
        self._check("delete", codes)
        return [0 in codes[i : i + self._groups] for i in range(0, len(codes), self._groups)]

    def put_small(self, name: str, value: bytes) -> bool:
        return self._records.put(self._names.of_record(name), value)

    def get_small(self, name: str) -> bytes | None:
        return self._records.get(self._names.of_record(name))

    def stats(self) -> dict[str, float]:
        with self._lock:
            return dict(self._stats)

    def clear(self) -> None:
        for _ in range(_CLEAR_TRIES):  # the master goes on where the library's patience ends
            status = self._store.remove_by_regex(self._names.pattern, True)
            if status != meaning.RPC_TIMEOUT:
                break
        self._check("clear", [status])

    def close(self) -> None:
        self._store.close()
        # The library lets go of its memory, 25 MB or more, only with its object: that must not wait
        # for the garbage collector, and the records refer to us.
        del self._store, self._records
        trim_memory()

    def objects(self) -> Iterator[StoredObject]:
        if self._config.tenant_id not in ("", _DEFAULT_TENANT):
            raise StorageUnsupported(
                "storage backend 'mooncake': the master lists only what its default tenant has, "
                f"not tenant_id {self._config.tenant_id!r}"
            )
        for name, num_bytes in MasterAdmin(self._config.metrics_addresses).object_sizes():
            stored = stored_object(name, num_bytes)
            if stored is not None:
                yield stored

    def _objects(
        self, keys: Sequence[bytes], slots: Sequence[int]
    ) -> tuple[list[str], list[int], list[int]]:
        assert len(keys) == len(slots), (len(keys), len(slots))
        groups = range(self._groups)
        addresses = [self._pool.address(slot, group) for slot in slots for group in groups]
        return self._names.of_pages(keys), addresses, [self._object_bytes] * len(addresses)

    def _one_of_each(
        self,
        call: Callable[[Sequence[bytes], Sequence[int]], list[bool]],
        keys: Sequence[bytes],
        slots: Sequence[int],
    ) -> list[bool]:
        """A batch that has keys twice, in parts that do not: the library fills but one of two."""
        firsts = {key: i for i, key in reversed(list(enumerate(keys)))}
        first = sorted(firsts.values())
        rest = sorted(set(range(len(keys))) - set(first))
        found: dict[int, bool] = {}
        for part in (first, rest):
            answers = call([keys[i] for i in part], [slots[i] for i in part])
            found.update(zip(part, answers, strict=True))
        return [found[i] for i in range(len(keys))]

    def _remove_misfits(self, names: Sequence[str], codes: Sequence[int]) -> None:
        """Objects of another size are in the way of good ones, since the first put wins."""
        size = self._object_bytes
        misfits = [
            name
            for name, code in zip(names, codes, strict=True)
            if code == meaning.TOO_LARGE or (code >= 0 and code != size)
        ]
        if misfits:
            self._count("misfits", len(misfits))
            self._store.batch_remove(misfits, True)

    def _by_key(self, found: list[bool]) -> list[bool]:
        """Whether all objects of a key were found, key by key."""
        if self._groups == 1:
            return found
        return [all(found[i : i + self._groups]) for i in range(0, len(found), self._groups)]

    def _check(self, call: str, codes: Sequence[int]) -> None:
        """Count faults of single objects, and raise for those of the store itself."""
        if not codes or min(codes) >= 0:
            return
        faults = meaning.faults_in(codes)
        self._count("failed_keys", len(faults))
        code = meaning.fault_of_the_store(codes, faults)
        if code is None:
            return
        kind = StorageRejected if code == meaning.UNKNOWN_TENANT else StorageUnavailable
        raise kind(f"storage backend 'mooncake': {call} failed with {meaning.words(code)}")

    def _count(self, name: str, n: int) -> None:
        with self._lock:
            self._stats[name] += n
